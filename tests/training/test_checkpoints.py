"""Checkpoints: written whole, read without trust, moved with their run."""

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

SMALL = ["model.widths=[4, 8]", "batch_size=8", "epochs=4", "average=0.5", "lr=0.01"]


class StopAt(Callback):
    """Ends a training run as it begins an epoch, as if the process had died."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("stopped")


def go_on(run, data, **options):
    recipe = load_recipe("mnist-cnn", [*SMALL, *options.pop("overrides", [])])
    return train(recipe, run, data=data, resume=True, progress=False, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of two classes of noise, one of them lighter."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8)):
        for name, least in (("dark", 0), ("light", 60)):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(least, 196 + least, (12, 12), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return str(folder)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that was never stopped."""
    return go_on(tmp_path_factory.mktemp("runs") / "whole", data)


@pytest.fixture(scope="module")
def half(data, tmp_path_factory):
    """A run that was stopped after two of its four epochs, the first of which was the best."""
    run = tmp_path_factory.mktemp("runs") / "half"
    with pytest.raises(RuntimeError, match="stopped"):
        go_on(run, data, callbacks=[StopAt(2)])
    return run


@pytest.fixture
def stopped(half, tmp_path):
    """A copy of the run that was stopped, which a test may change."""
    return Path(shutil.copytree(half, tmp_path / "run"))


def same_weights(run, other):
    ours, theirs = (load_file(one / "model.safetensors") for one in (run, other))
    return all(torch.equal(ours[key], theirs[key]) for key in theirs)


def curve(run):
    """Return the rows of a run's curve without their seconds, which differ."""
    return [row.rsplit(",", 1)[0] for row in (run / "metrics.csv").read_text().splitlines()]


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_moved_run_goes_on_as_if_it_had_never_stopped(whole, stopped, half, data):
    assert str(half) not in str(read_checkpoint(stopped / "checkpoints" / "last.ckpt"))
    go_on(stopped, data)
    assert same_weights(stopped, whole)
    assert curve(stopped) == curve(whole)
    assert checkpoints(stopped) == checkpoints(whole)


def test_a_moved_run_keeps_its_best_epoch_when_no_later_one_is_better(whole, stopped, data):
    """What was best stays best: a greater score than any is written into the checkpoint."""
    last, best = (stopped / "checkpoints" / name for name in checkpoints(stopped)[::-1])
    epoch = int(best.stem[-4:])
    for path in (last, best):
        values = torch.load(path, weights_only=True)
        values["callbacks"]["Checkpoints"] = {"epoch": epoch, "score": 2.0}
        write_checkpoint(values, path)
    expected = torch.load(best, weights_only=True)["state_dict"]
    go_on(stopped, data)
    assert checkpoints(stopped) == [best.name, "last.ckpt"]
    found = load_file(stopped / "model.safetensors")
    assert all(torch.equal(value, expected[f"model.{key}"]) for key, value in found.items())


# What an attacker, a disk or another version may have made of a checkpoint.
PATHS = ["local:///{victim}", "{victim}", "{run}/checkpoints/../../victim", "file://{victim}"]


def with_paths(values, path):
    state = dict.fromkeys(("best_model_path", "kth_best_model_path", "last_model_path"), path)
    state |= {"best_k_models": {path: torch.tensor(-1.0)}, "best_model_score": torch.tensor(-1.0)}
    for mode in ("max", "min"):
        for monitor in ("val_accuracy", None):
            key = ModelCheckpoint(monitor=monitor, mode=mode).state_key
            values["callbacks"][key] = {**state, "dirpath": path, "kth_value": torch.tensor(-1.0)}
    return values


@pytest.mark.parametrize("path", PATHS)
def test_no_path_in_a_checkpoint_is_used(whole, stopped, data, tmp_path, path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("years of work")
    for name in checkpoints(stopped):
        file = stopped / "checkpoints" / name
        values = torch.load(file, weights_only=True)
        write_checkpoint(with_paths(values, path.format(victim=victim, run=stopped)), file)
    own = ModelCheckpoint(stopped / "own", monitor="val_accuracy", mode="max")
    go_on(stopped, data, callbacks=[own])
    assert (victim / "thesis.txt").read_text() == "years of work"
    assert same_weights(stopped, whole)


def change(where, value):
    """Return a function that puts a value into a checkpoint; a key of None removes it."""

    def changed(values):
        *path, last = where.split("/")
        inner = values
        for key in path:
            inner = inner[int(key) if isinstance(inner, list) or key.isdigit() else key]
        key = int(last) if isinstance(inner, list) or last.isdigit() else last
        if value is None:
            del inner[key]
        else:
            inner[key] = value
        return values

    return changed


FIT, CURVE = "loops/fit_loop", "callbacks/Curve/rows"
WEIGHT = "state_dict/model.head.1.bias"
HOSTILE = {
    "a list": lambda values: [values],
    "nothing": lambda values: {},
    "no weights": change("state_dict", None),
    "a weight missing": change(WEIGHT, None),
    "a weight more": change("state_dict/model.extra", torch.zeros(2)),
    "a weight of another shape": change(WEIGHT, torch.zeros(3)),
    "a weight of another type": change(WEIGHT, torch.zeros(2, dtype=torch.int64)),
    "a weight that is text": change(WEIGHT, "zero"),
    "a weight of one element repeated": change(WEIGHT, torch.zeros(1).expand(10**9)),
    "a sparse weight": change(WEIGHT, torch.zeros(2).to_sparse()),
    "a weight without memory": change(WEIGHT, torch.empty(2, device="meta")),
    "no average": change("averaging_state", None),
    "an average of another model": change("current_model_state", {}),
    "no version": change("pytorch-lightning_version", None),
    "an old version": change("pytorch-lightning_version", "1.4.0"),
    "a version that is none": change("pytorch-lightning_version", "../x"),
    "a version of another type": change("pytorch-lightning_version", 10**9),
    "no loops": change("loops", None),
    "loops of another kind": change("loops", {"fit_loop": 3}),
    "an epoch before the first": change(f"{FIT}/epoch_progress/current/ready", -(10**18)),
    "an epoch beyond the last": change(f"{FIT}/epoch_progress/current/ready", 10**6),
    "an epoch that is text": change(f"{FIT}/epoch_progress/current/ready", "1"),
    "a method in the progress": change(f"{FIT}/epoch_progress/current/increment_ready", 1),
    "a batch beyond the last": change(f"{FIT}/epoch_loop.batch_progress/current/ready", 10**9),
    "a huge integer": change(f"{FIT}/epoch_loop.batch_progress/total/ready", 10**5_000),
    "no optimizer": change("optimizer_states", []),
    "an optimizer without state": change("optimizer_states/0/state", "x"),
    "a moment of another shape": change("optimizer_states/0/state/0/exp_avg", torch.zeros(1)),
    "a moment missing": change("optimizer_states/0/state/0/exp_avg", None),
    "a parameter more": change("optimizer_states/0/param_groups/0/params", list(range(99))),
    "a rate that is NaN": change("optimizer_states/0/param_groups/0/lr", math.nan),
    "another decay": change("optimizer_states/0/param_groups/0/weight_decay", 1e9),
    "no schedule": change("lr_schedulers", []),
    "a schedule of one step": change("lr_schedulers/0/total_steps", 1),
    "a schedule beyond its end": change("lr_schedulers/0/last_epoch", 10**6),
    "an optimizer in a schedule": change("lr_schedulers/0/optimizer", "x"),
    "callbacks that are a list": change("callbacks", []),
    "no curve": change("callbacks/Curve", None),
    "a curve of another kind": change(CURVE, 5),
    "a curve too short": change(CURVE, []),
    "a curve of text": change(f"{CURVE}/0/val_loss", "=cmd()"),
    "a curve with another column": change(f"{CURVE}/0/x", 1.0),
    "an epoch twice": change(f"{CURVE}/1/epoch", 0),
    "no best epoch": change("callbacks/Checkpoints", None),
    "a best epoch that is a path": change("callbacks/Checkpoints/epoch", "../../x"),
    "a best epoch to come": change("callbacks/Checkpoints/epoch", 3),
    "a best score that is NaN": change("callbacks/Checkpoints/score", math.nan),
    "another recipe": change("recipe/name", "other"),
    "a set": change("x", {1}),
    "bytes": change("x", b"x"),
    "a key that is a tuple": lambda values: {**values, (1, 2): 3},
    "deeper than any": change("x", nested := [1]),
}
for _ in range(200):
    nested[:] = [nested.copy()]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_checkpoint_that_this_run_could_not_have_written_is_one_line(name, stopped, data):
    for file in checkpoints(stopped):
        path = stopped / "checkpoints" / file
        values = HOSTILE[name](torch.load(path, weights_only=True))
        write_checkpoint(copy.copy(values), path)
    before = {path: path.read_bytes() for path in (stopped / "checkpoints").iterdir()}
    with pytest.raises(UserError, match=r"No checkpoint in .* can be used") as caught:
        go_on(stopped, data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000
    assert {path: path.read_bytes() for path in (stopped / "checkpoints").iterdir()} == before


def test_attributes_of_mappings_are_not_taken_over(whole, stopped, data):
    for file in checkpoints(stopped):
        path = stopped / "checkpoints" / file
        values = torch.load(path, weights_only=True)
        state = OrderedDict(values["state_dict"])
        state._metadata = 5
        values["state_dict"] = state
        write_checkpoint(values, path)
    go_on(stopped, data)
    assert same_weights(stopped, whole)


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
        zipfile.ZipFile(tmp_path / "x.ckpt") as large,
        zipfile.ZipFile(tmp_path / "small.ckpt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in large.namelist():
            small.writestr(name, large.read(name))
    with pytest.raises(UserError, match="compressed"):
        read_checkpoint(tmp_path / "small.ckpt")


def test_a_cycle_is_refused(tmp_path):
    values = {"x": []}
    values["x"].append(values["x"])
    torch.save(values, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="levels"):
        read_checkpoint(tmp_path / "x.ckpt")


def cut(content):
    return content[: len(content) // 2]


DAMAGE = {
    "cut short": cut,
    "empty": lambda content: b"",
    "of zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"not a checkpoint",
    "a page of zeros": lambda content: content[:4096] + bytes(4096) + content[8192:],
    "without its end": lambda content: content[:-30],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_last_checkpoint_falls_back_on_the_best_one(damage, whole, stopped, data):
    last = stopped / "checkpoints" / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    lines = []
    go_on(stopped, data, say=lines.append)
    assert sum("Resuming from" in line and "last.ckpt" in line for line in lines) == 1
    assert same_weights(stopped, whole)
    assert curve(stopped) == curve(whole)


def test_without_a_say_the_fall_back_is_a_warning(stopped, data):
    (stopped / "checkpoints" / "last.ckpt").write_bytes(b"")
    with pytest.warns(UserWarning, match="Resuming from"):
        go_on(stopped, data)


def test_a_damaged_best_checkpoint_is_said_and_the_run_goes_on(stopped, data):
    for path in (stopped / "checkpoints").glob("best-*.ckpt"):
        path.write_bytes(b"")
    lines = []
    go_on(stopped, data, say=lines.append)
    assert sum("cannot be used" in line for line in lines) == 1
    assert (stopped / "model.safetensors").exists()


def test_a_finished_run_whose_best_checkpoint_is_gone_keeps_the_last_weights(whole, data, tmp_path):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    for path in (run / "checkpoints").glob("best-*.ckpt"):
        path.unlink()
    lines = []
    go_on(run, data, say=lines.append)
    expected = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    found = load_file(run / "model.safetensors")
    assert all(torch.equal(value, expected[f"model.{key}"]) for key, value in found.items())
    assert any("the last one" in line for line in lines)


@pytest.mark.parametrize("text", ["", "a: [", "x", "\0", "name: 1\n" * 10, "a: &a [1]\nb: *a"])
def test_a_damaged_recipe_is_written_anew_and_the_checkpoints_know_their_settings(
    text, stopped, data
):
    (stopped / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match="other settings"):
        go_on(stopped, data, overrides=["lr=0.02"], say=lambda line: None)
    (stopped / "recipe.yaml").write_text(text)
    lines = []
    with pytest.raises(RuntimeError, match="stopped"):
        go_on(stopped, data, callbacks=[StopAt(2)], say=lines.append)
    assert any("written again" in line for line in lines)
    assert (stopped / "recipe.yaml").read_text().startswith("name: mnist-cnn")


@pytest.mark.parametrize("place", ["checkpoints/last.ckpt", "checkpoints", "recipe.yaml", "x"])
def test_links_in_a_run_folder_are_refused(place, stopped, data, tmp_path):
    other = tmp_path / "other"
    if (stopped / place).exists():
        (stopped / place).rename(other)
    (stopped / place).symlink_to(other)
    with pytest.raises(UserError, match="is a link"):
        go_on(stopped, data)


def test_a_checkpoint_is_whole_or_not_at_all_on_a_full_disk(stopped, data, monkeypatch):
    before = {path: path.read_bytes() for path in (stopped / "checkpoints").iterdir()}

    def full(path, content):
        with files.whole_file(path) as partial:
            partial.write_bytes(content[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("foveal.training.checkpoint_file.write_bytes", full)
    with pytest.raises(UserError, match=rf"disk is full.*{stopped.name}.*--resume"):
        go_on(stopped, data)
    assert {path: path.read_bytes() for path in (stopped / "checkpoints").iterdir()} == before
