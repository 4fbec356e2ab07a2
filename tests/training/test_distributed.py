"""Distributed training: gradients equal to those of one process, and images in shared memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from foveal.datasets import load_images
from foveal.foundation.errors import UserError
from foveal.training import is_first_process, load_recipe, train
from foveal.training.distribution.devices import Devices, check_batch
from foveal.training.distribution.shared_images import delete_shared_images, load_shared
from foveal.training.distribution.synced_norm import SyncedBatchNorm, synchronise

# Script that trains and, in double precision, saves the averaged gradients of the first step. In
# single precision, torch's batch normalisation has an error of a few per cent on the uniform
# background of digits.
_TRAIN_SCRIPT = """
import sys
from lightning import Callback
from safetensors.torch import save_file
from foveal.training import load_recipe, train
from foveal.training.objectives.objective import Objective

class SaveGradients(Callback):
    def setup(self, trainer, module, stage):
        module.double()

    def on_after_backward(self, trainer, module):
        if trainer.global_step == 0 and trainer.is_global_zero:
            gradients = {name: weight.grad.contiguous()
                         for name, weight in module.model.named_parameters()
                         if weight.grad is not None}
            save_file(gradients, sys.argv[1] + ".gradients")

out, devices, precision, *overrides = sys.argv[1:]
if precision == "double":
    Objective.floats = staticmethod(lambda images: images.double() / 255)
train(load_recipe("mnist-cnn", overrides), out, data="mnist-5k", devices=int(devices),
      sync_norm=True, progress=False, callbacks=[SaveGradients()] if precision == "double" else [])
"""
# Augmentation is turned off, because each process draws random transformations of its own.
_NO_AUGMENTATION = ["augment.shift=0", "augment.rotate=0", "augment.scale=0"]


def train_with_one_and_two_processes(folder: Path, precision: str, *overrides: str) -> list[Path]:
    """Train with one process and with two; return the run folders `1` and `2`."""
    script = folder / "train.py"
    runs = [folder / "1", folder / "2"]  # each named by its number of processes
    script.write_text(_TRAIN_SCRIPT)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    for run in runs:
        command = [sys.executable, str(script), str(run), run.name, precision]
        process = subprocess.run(
            [*command, *_NO_AUGMENTATION, *overrides],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr[-2000:]
    return runs


@pytest.mark.slow
def test_the_first_gradients_of_two_processes_equal_those_of_one(tmp_path):
    small = ["model.widths=[4, 8, 8]", "epochs=1", "data.limit=400"]
    runs = train_with_one_and_two_processes(tmp_path, "double", *small)
    expected, gradients = (load_file(f"{run}.gradients") for run in runs)
    assert set(expected) == set(gradients)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 0.01
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-8, rtol=0)


@pytest.mark.slow
def test_two_processes_reach_the_accuracy_of_one(tmp_path):
    runs = train_with_one_and_two_processes(tmp_path, "single", "epochs=2")
    accuracy, accuracy_of_two = (
        json.loads((run / "card.json").read_text())["val_accuracy"] for run in runs
    )
    assert accuracy > 0.8
    assert abs(accuracy - accuracy_of_two) <= 0.005
    assert not (tmp_path / "2" / "images.safetensors").exists()


_NORMALISE_SCRIPT = """
import sys
import torch
from foveal.training.distribution.synced_norm import SyncedBatchNorm
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", f"file://{sys.argv[2]}/meet", rank=rank, world_size=2)
images = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 50
part = images[rank::2].requires_grad_()
layer = SyncedBatchNorm(3)
layer(part).square().mul(torch.arange(4.0)).mean().backward()
torch.save([part.grad, layer.running_mean, layer.running_var], f"{sys.argv[2]}/{rank}.pt")
torch.distributed.barrier()  # if a process exits early, the other may fail
torch.distributed.destroy_process_group()
"""


def test_normalising_over_two_processes_equals_normalising_the_whole_batch(tmp_path):
    command = [sys.executable, "-c", _NORMALISE_SCRIPT]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    images = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 50
    whole_batch = images.requires_grad_()
    layer = nn.BatchNorm2d(3)
    layer(whole_batch).square().mul(torch.arange(4.0)).mean().backward()
    for rank in range(2):
        gradient, mean, variance = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        # The loss of each process is the mean over its half.
        torch.testing.assert_close(gradient / 2, whole_batch.grad[rank::2], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(mean, layer.running_mean)
        torch.testing.assert_close(variance, layer.running_var)


def test_replacing_batch_norms_by_synchronised_ones_keeps_weights_and_outputs():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())).eval()
    model[1][0].requires_grad_(False)
    images = torch.rand(2, 1, 8, 8)
    output = model(images)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    synchronise(model)
    assert isinstance(model[1][0], SyncedBatchNorm)
    assert not model[1][0].training
    assert not model[1][0].weight.requires_grad
    assert torch.equal(model(images), output)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert set(state) == set(model.state_dict())


def test_images_are_written_once_and_memory_mapped_by_the_other_processes(tmp_path, monkeypatch):
    for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    sets = {split: load_images("mnist-5k", split) for split in ("train", "val")}
    first = load_shared(lambda: sets, tmp_path, 2)
    second = load_shared(lambda: pytest.fail("loaded again"), tmp_path, 2)
    for split, images in sets.items():
        for shared in (first[split], second[split]):
            assert torch.equal(shared.images, images.images)
            assert torch.equal(shared.labels, images.labels)
            assert (shared.classes, shared.name, shared.masks) == (images.classes, "mnist-5k", None)
    maps = Path("/proc/self/maps").read_text()
    assert "images.safetensors" in maps
    delete_shared_images(tmp_path)
    assert not (tmp_path / "images.safetensors").exists()
    assert load_shared(lambda: sets, tmp_path, 1) is sets


def test_a_batch_that_cannot_be_divided_evenly_is_refused():
    check_batch(64, 4)
    with pytest.raises(
        UserError, match=r"divided evenly among 3 processes: use training\.batch_size=63"
    ):
        check_batch(64, 3)
    with pytest.raises(UserError, match=r"training\.batch_size=8"):
        train(load_recipe("mnist-5k-focus", ["batch_size=7"]), "nowhere", devices=4, nodes=2)


def test_invalid_device_settings_are_errors():
    with pytest.raises(UserError, match="Did you mean 'ddp'"):
        Devices(strategy="dpd")
    with pytest.raises(UserError, match="at least 1 node"):
        Devices(nodes=0)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="this machine has none: use ddp"):
            Devices(strategy="fsdp")


def test_only_one_process_over_all_machines_is_the_first(monkeypatch):
    for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_process()
    for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID"):
        monkeypatch.setenv(name, "0")
        assert is_first_process()
        monkeypatch.setenv(name, "1")
        assert not is_first_process()
        monkeypatch.setenv(name, "0")
