"""Checkpoints: resuming from them, validation on reading, and atomic writes."""

import copy
import errno
import math
import os
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from safetensors.torch import load_file

from foveal.foundation import files
from foveal.foundation.errors import UserError
from foveal.training import load_recipe, train
from foveal.training.checkpoint_file import read_checkpoint, write_checkpoint

SMALL_RUN = ["model.widths=[4, 8]", "batch_size=8", "epochs=4", "average=0.5", "lr=0.01"]


class StopAt(Callback):
    """A callback that raises an error at the start of an epoch, as if the process had died."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("stopped")


def start_or_resume(run, data, **options):
    """Train a small CNN in the folder `run`, or resume its training; return the folder."""
    recipe = load_recipe("mnist-cnn", [*SMALL_RUN, *options.pop("overrides", [])])
    return train(recipe, run, data=data, resume=True, progress=False, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of two classes of noise, one of them lighter."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8)):
        for name, min_value in (("dark", 0), ("light", 60)):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(min_value, 196 + min_value, (12, 12), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return str(folder)


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """A run that was never interrupted."""
    return start_or_resume(tmp_path_factory.mktemp("runs") / "uninterrupted", data)


@pytest.fixture(scope="module")
def interrupted(data, tmp_path_factory):
    """A run that was stopped after two of its four epochs; the first was the best."""
    run = tmp_path_factory.mktemp("runs") / "half"
    with pytest.raises(RuntimeError, match="stopped"):
        start_or_resume(run, data, callbacks=[StopAt(2)])
    return run


@pytest.fixture
def stopped_run(interrupted, tmp_path):
    """A copy of the interrupted run, which a test may change."""
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


def have_same_weights(run, other):
    """Return whether the models of two runs have equal weights."""
    weights, other_weights = (load_file(folder / "model.safetensors") for folder in (run, other))
    return all(torch.equal(weights[key], other_weights[key]) for key in other_weights)


def curve(run):
    """Return the rows of a run's curve without the seconds, which vary."""
    return [row.rsplit(",", 1)[0] for row in (run / "metrics.csv").read_text().splitlines()]


def checkpoint_names(run):
    """Return the sorted file names of a run's checkpoints: `best-*.ckpt`, then `last.ckpt`."""
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_moved_run_resumes_as_if_uninterrupted(uninterrupted, stopped_run, interrupted, data):
    assert str(interrupted) not in str(read_checkpoint(stopped_run / "checkpoints" / "last.ckpt"))
    start_or_resume(stopped_run, data)
    assert have_same_weights(stopped_run, uninterrupted)
    assert curve(stopped_run) == curve(uninterrupted)
    assert checkpoint_names(stopped_run) == checkpoint_names(uninterrupted)


def test_a_resumed_run_keeps_its_best_epoch_if_no_later_one_is_better(
    uninterrupted, stopped_run, data
):
    """The test writes a best score into the checkpoints that no later epoch can reach."""
    last, best = (
        stopped_run / "checkpoints" / name for name in checkpoint_names(stopped_run)[::-1]
    )
    epoch = int(best.stem[-4:])  # the name ends with the epoch in four digits
    for path in (last, best):
        values = torch.load(path, weights_only=True)
        values["callbacks"]["Checkpoints"] = {"epoch": epoch, "score": 2.0}
        write_checkpoint(values, path)
    expected = torch.load(best, weights_only=True)["state_dict"]
    start_or_resume(stopped_run, data)
    assert checkpoint_names(stopped_run) == [best.name, "last.ckpt"]
    weights = load_file(stopped_run / "model.safetensors")
    assert all(torch.equal(value, expected[f"model.{key}"]) for key, value in weights.items())


# Paths that an attacker could write into a checkpoint.
PATHS = ["local:///{victim}", "{victim}", "{run}/checkpoints/../../victim", "file://{victim}"]


def with_paths(values, path):
    """Return a checkpoint with a path in every entry in which Lightning could store one."""
    state = dict.fromkeys(("best_model_path", "kth_best_model_path", "last_model_path"), path)
    state |= {"best_k_models": {path: torch.tensor(-1.0)}, "best_model_score": torch.tensor(-1.0)}
    for mode in ("max", "min"):
        for monitor in ("val_accuracy", None):
            key = ModelCheckpoint(monitor=monitor, mode=mode).state_key
            values["callbacks"][key] = {**state, "dirpath": path, "kth_value": torch.tensor(-1.0)}
    return values


@pytest.mark.parametrize("path", PATHS)
def test_no_path_in_a_checkpoint_is_used(uninterrupted, stopped_run, data, tmp_path, path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("years of work")
    for name in checkpoint_names(stopped_run):
        file = stopped_run / "checkpoints" / name
        values = torch.load(file, weights_only=True)
        write_checkpoint(with_paths(values, path.format(victim=victim, run=stopped_run)), file)
    callback = ModelCheckpoint(stopped_run / "own", monitor="val_accuracy", mode="max")
    start_or_resume(stopped_run, data, callbacks=[callback])
    assert (victim / "thesis.txt").read_text() == "years of work"
    assert have_same_weights(stopped_run, uninterrupted)


def set_value(key_path, value):
    """Return a function that sets an entry of a checkpoint, or removes it if the value is None.

    Args:
        key_path: the keys of nested mappings and lists, separated by slashes.
        value: the new value.
    """

    def set_in(values):
        *path, last = key_path.split("/")
        inner = values
        for key in path:
            inner = inner[int(key) if isinstance(inner, list) or key.isdigit() else key]
        key = int(last) if isinstance(inner, list) or last.isdigit() else last
        if value is None:
            del inner[key]
        else:
            inner[key] = value
        return values

    return set_in


FIT, CURVE = "loops/fit_loop", "callbacks/Curve/rows"
WEIGHT = "state_dict/model.head.1.bias"
# Functions that return an invalid version of a checkpoint, by what is wrong with it.
HOSTILE = {
    "a list": lambda values: [values],
    "nothing": lambda values: {},
    "no weights": set_value("state_dict", None),
    "a weight missing": set_value(WEIGHT, None),
    "an extra weight": set_value("state_dict/model.extra", torch.zeros(2)),
    "a weight of another shape": set_value(WEIGHT, torch.zeros(3)),
    "a weight of another type": set_value(WEIGHT, torch.zeros(2, dtype=torch.int64)),
    "a weight that is text": set_value(WEIGHT, "zero"),
    "a weight of one element repeated": set_value(WEIGHT, torch.zeros(1).expand(10**9)),
    "a sparse weight": set_value(WEIGHT, torch.zeros(2).to_sparse()),
    "a weight without memory": set_value(WEIGHT, torch.empty(2, device="meta")),
    "no average": set_value("averaging_state", None),
    "an average of another model": set_value("current_model_state", {}),
    "no version": set_value("pytorch-lightning_version", None),
    "an old version": set_value("pytorch-lightning_version", "1.4.0"),
    "a malformed version": set_value("pytorch-lightning_version", "../x"),
    "a version of another type": set_value("pytorch-lightning_version", 10**9),
    "no loops": set_value("loops", None),
    "loops of another kind": set_value("loops", {"fit_loop": 3}),
    "an epoch before the first": set_value(f"{FIT}/epoch_progress/current/ready", -(10**18)),
    "an epoch beyond the last": set_value(f"{FIT}/epoch_progress/current/ready", 10**6),
    "an epoch that is text": set_value(f"{FIT}/epoch_progress/current/ready", "1"),
    "a method in the progress": set_value(f"{FIT}/epoch_progress/current/increment_ready", 1),
    "a batch beyond the last": set_value(f"{FIT}/epoch_loop.batch_progress/current/ready", 10**9),
    "a huge integer": set_value(f"{FIT}/epoch_loop.batch_progress/total/ready", 10**5_000),
    "no optimizer": set_value("optimizer_states", []),
    "an optimizer without state": set_value("optimizer_states/0/state", "x"),
    "a moment of another shape": set_value("optimizer_states/0/state/0/exp_avg", torch.zeros(1)),
    "a moment missing": set_value("optimizer_states/0/state/0/exp_avg", None),
    "an extra parameter": set_value("optimizer_states/0/param_groups/0/params", list(range(99))),
    "a rate that is NaN": set_value("optimizer_states/0/param_groups/0/lr", math.nan),
    "another decay": set_value("optimizer_states/0/param_groups/0/weight_decay", 1e9),
    "no schedule": set_value("lr_schedulers", []),
    "a schedule of one step": set_value("lr_schedulers/0/total_steps", 1),
    "a schedule beyond its end": set_value("lr_schedulers/0/last_epoch", 10**6),
    "an optimizer in a schedule": set_value("lr_schedulers/0/optimizer", "x"),
    "callbacks that are a list": set_value("callbacks", []),
    "no curve": set_value("callbacks/Curve", None),
    "a curve of another kind": set_value(CURVE, 5),
    "a curve too short": set_value(CURVE, []),
    "a curve of text": set_value(f"{CURVE}/0/val_loss", "=cmd()"),
    "a curve with another column": set_value(f"{CURVE}/0/x", 1.0),
    "an epoch twice": set_value(f"{CURVE}/1/epoch", 0),
    "no best epoch": set_value("callbacks/Checkpoints", None),
    "a best epoch that is a path": set_value("callbacks/Checkpoints/epoch", "../../x"),
    "a best epoch in the future": set_value("callbacks/Checkpoints/epoch", 3),
    "a best score that is NaN": set_value("callbacks/Checkpoints/score", math.nan),
    "another recipe": set_value("recipe/name", "other"),
    "a set": set_value("x", {1}),
    "bytes": set_value("x", b"x"),
    "a key that is a tuple": lambda values: {**values, (1, 2): 3},
    "nested too deeply": set_value("x", nested := [1]),  # nested by the loop below
}
for _ in range(200):
    nested[:] = [nested.copy()]


@pytest.mark.parametrize("name", HOSTILE)
def test_an_invalid_checkpoint_is_a_one_line_error(name, stopped_run, data):
    for file in checkpoint_names(stopped_run):
        path = stopped_run / "checkpoints" / file
        values = HOSTILE[name](torch.load(path, weights_only=True))
        write_checkpoint(copy.copy(values), path)
    before = {path: path.read_bytes() for path in (stopped_run / "checkpoints").iterdir()}
    with pytest.raises(UserError, match=r"No checkpoint in .* can be used") as error:
        start_or_resume(stopped_run, data)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1_000
    assert {path: path.read_bytes() for path in (stopped_run / "checkpoints").iterdir()} == before


def test_attributes_of_the_mappings_in_a_checkpoint_are_ignored(uninterrupted, stopped_run, data):
    for file in checkpoint_names(stopped_run):
        path = stopped_run / "checkpoints" / file
        values = torch.load(path, weights_only=True)
        state = OrderedDict(values["state_dict"])
        state._metadata = 5
        values["state_dict"] = state
        write_checkpoint(values, path)
    start_or_resume(stopped_run, data)
    assert have_same_weights(stopped_run, uninterrupted)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"state_dict": Code()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "made").exists()


def test_a_compressed_checkpoint_is_refused(tmp_path):
    torch.save({"x": torch.zeros(10**6)}, tmp_path / "x.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "x.ckpt") as stored,
        zipfile.ZipFile(tmp_path / "small.ckpt", "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for name in stored.namelist():
            compressed.writestr(name, stored.read(name))
    with pytest.raises(UserError, match="compressed"):
        read_checkpoint(tmp_path / "small.ckpt")


def test_a_checkpoint_that_contains_itself_is_refused(tmp_path):
    values = {"x": []}
    values["x"].append(values["x"])
    torch.save(values, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="levels"):
        read_checkpoint(tmp_path / "x.ckpt")


def first_half(content):
    return content[: len(content) // 2]


DAMAGE = {
    "truncated": first_half,
    "empty": lambda content: b"",
    "all zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"not a checkpoint",
    "a page of zeros": lambda content: content[:4096] + bytes(4096) + content[8192:],
    "last bytes missing": lambda content: content[:-30],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_run_with_a_damaged_last_checkpoint_is_resumed_from_the_best_one(
    damage, uninterrupted, stopped_run, data
):
    last = stopped_run / "checkpoints" / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    lines = []
    start_or_resume(stopped_run, data, notify=lines.append)
    assert sum("Resuming from" in line and "last.ckpt" in line for line in lines) == 1
    assert have_same_weights(stopped_run, uninterrupted)
    assert curve(stopped_run) == curve(uninterrupted)


def test_without_a_notify_callback_the_fallback_is_a_warning(stopped_run, data):
    (stopped_run / "checkpoints" / "last.ckpt").write_bytes(b"")
    with pytest.warns(UserWarning, match="Resuming from"):
        start_or_resume(stopped_run, data)


def test_a_damaged_best_checkpoint_is_reported_and_the_run_continues(stopped_run, data):
    for path in (stopped_run / "checkpoints").glob("best-*.ckpt"):
        path.write_bytes(b"")
    lines = []
    start_or_resume(stopped_run, data, notify=lines.append)
    assert sum("cannot be used" in line for line in lines) == 1
    assert (stopped_run / "model.safetensors").exists()


def test_a_finished_run_without_its_best_checkpoint_keeps_the_last_weights(
    uninterrupted, data, tmp_path
):
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    for path in (run / "checkpoints").glob("best-*.ckpt"):
        path.unlink()
    lines = []
    start_or_resume(run, data, notify=lines.append)
    expected = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    weights = load_file(run / "model.safetensors")
    assert all(torch.equal(value, expected[f"model.{key}"]) for key, value in weights.items())
    assert any("the last one" in line for line in lines)


@pytest.mark.parametrize("text", ["", "a: [", "x", "\0", "name: 1\n" * 10, "a: &a [1]\nb: *a"])
def test_a_damaged_recipe_is_rewritten_and_settings_are_checked_against_the_checkpoint(
    text, stopped_run, data
):
    (stopped_run / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match="other settings"):
        start_or_resume(stopped_run, data, overrides=["lr=0.02"], notify=lambda line: None)
    (stopped_run / "recipe.yaml").write_text(text)
    lines = []
    with pytest.raises(RuntimeError, match="stopped"):
        start_or_resume(stopped_run, data, callbacks=[StopAt(2)], notify=lines.append)
    assert any("The file is overwritten" in line for line in lines)
    assert (stopped_run / "recipe.yaml").read_text().startswith("name: mnist-cnn")


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "checkpoints", "recipe.yaml", "x"])
def test_links_in_a_run_folder_are_refused(name, stopped_run, data, tmp_path):
    other = tmp_path / "other"
    if (stopped_run / name).exists():
        (stopped_run / name).rename(other)
    (stopped_run / name).symlink_to(other)
    with pytest.raises(UserError, match="is a link"):
        start_or_resume(stopped_run, data)


def test_a_full_disk_leaves_no_partial_checkpoint(stopped_run, data, monkeypatch):
    before = {path: path.read_bytes() for path in (stopped_run / "checkpoints").iterdir()}

    def write_partially(path, content):
        with files.atomic_file(path) as partial:
            partial.write_bytes(content[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("foveal.training.checkpoint_file.write_bytes", write_partially)
    with pytest.raises(UserError, match=rf"disk is full.*{stopped_run.name}.*--resume"):
        start_or_resume(stopped_run, data)
    assert {path: path.read_bytes() for path in (stopped_run / "checkpoints").iterdir()} == before
