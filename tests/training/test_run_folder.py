"""Run folders: locking, use of a folder again after a failed attempt, and errors."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import Callback

from foveal.deployment.batch import predict
from foveal.foundation import files
from foveal.foundation.errors import UserError
from foveal.training import load_recipe, train
from photo_folders import write_noise

SMALL_RUN = ["model.widths=[4]", "batch_size=8", "epochs=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of two classes of noise."""
    return str(write_noise(tmp_path_factory.mktemp("noise"), 8, (12, 12)))


class Fail(Callback):
    """A callback that raises an error after the first step."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, *_):
        raise self.error


def train_small(out, data, *overrides, **options):
    """Train a small CNN for one epoch in the folder `out`."""
    recipe = load_recipe("mnist-cnn", [*SMALL_RUN, *overrides])
    return train(recipe, out, data=data, progress=False, **options)


# For each reason, the overrides and the arguments of `train` that make a run fail.
FAILURES = {
    "an unknown model setting": (["model.width=3"], {}),
    "no such data": ([], {"data": "/nowhere"}),
    "no such part": (["freeze=heart"], {}),
    "out of GPU memory": ([], {"callbacks": [Fail(torch.OutOfMemoryError("no memory"))]}),
    "out of memory": ([], {"callbacks": [Fail(MemoryError())]}),
    "a loss that is NaN": (
        ["lr=1e5", "epochs=3"],
        {"callbacks": [Fail(UserError("The loss became nan"))]},
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_first_attempt_does_not_block_the_next(name, data, tmp_path):
    overrides, options = FAILURES[name]
    with pytest.raises(UserError) as error:
        train_small(tmp_path / "runs" / "run", options.pop("data", data), *overrides, **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs" / "run").exists()
    train_small(tmp_path / "runs" / "run", data)


def test_a_failed_attempt_keeps_other_files_of_the_folder(data, tmp_path):
    (tmp_path / "log.txt").write_text("mine")
    with pytest.raises(UserError):
        train_small(tmp_path, data, callbacks=[Fail(MemoryError())])
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


def test_the_files_of_a_run_killed_in_its_first_epoch_are_replaced(data, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "recipe.yaml").write_text("name: other\nmodel: {name: cnn}\n")
    (tmp_path / "checkpoints" / ".last.ckpt.1.partial").write_bytes(b"half")
    train_small(tmp_path, data)
    with pytest.raises(UserError, match="holds a run already"):
        train_small(tmp_path, data)


def test_two_runs_cannot_train_in_the_same_folder(data, tmp_path):
    with (
        files.locked_folder(tmp_path),
        pytest.raises(UserError, match="Another process is training"),
    ):
        train_small(tmp_path, data)
    train_small(tmp_path, data)


def test_a_dead_process_releases_its_folder(tmp_path):
    code = "from foveal.foundation.files import locked_folder\n"
    code += "from pathlib import Path; import os, sys\n"
    code += "with locked_folder(Path(sys.argv[1])): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    with files.locked_folder(tmp_path):
        pass


@pytest.mark.parametrize("out", ["file/run", "file", "x" * 300, "\0"])
def test_a_folder_that_cannot_be_created_is_a_one_line_error(out, data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to") as error:
        train_small(tmp_path / out, data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.EROFS, "Read-only file system"),
        (errno.EACCES, "Permission denied"),
        (errno.ENOSPC, r"disk is full.*--resume"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_an_error(code, message, data, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("foveal.training.run_folder.write_recipe", refuse)
    with pytest.raises(UserError, match=message) as error:
        train_small(tmp_path / "run", data)
    assert "run" in str(error.value)


def test_a_prediction_that_failed_before_its_first_shard_does_not_block_the_next(
    data, tmp_path, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for out in (tmp_path / "rows", tmp_path / "rows.parquet"):
        with pytest.raises(UserError, match="no GPU"):
            predict("mnist-cnn", data, out, device="cuda")
        result = predict("mnist-cnn", data, out, batch_size=3)
        assert (result.images, result.errors) == (32, 0)
        with pytest.raises(UserError, match="holds a run already"):
            predict("mnist-cnn", data, out, batch_size=3)
    assert Path(tmp_path / "rows.parquet").is_file()
