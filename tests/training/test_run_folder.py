"""Run folders: held by one run, taken over from a try that failed, sentences for the rest."""

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
from photo_folders import noise

SMALL = ["model.widths=[4]", "batch_size=8", "epochs=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of two classes of noise."""
    return str(noise(tmp_path_factory.mktemp("noise"), 8, (12, 12)))


class Fails(Callback):
    """Raises an error in the first step."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, *_):
        raise self.error


def learn(out, data, *changes, **options):
    recipe = load_recipe("mnist-cnn", [*SMALL, *changes])
    return train(recipe, out, data=data, progress=False, **options)


FAILURES = {
    "a setting that no model has": (["model.width=3"], {}),
    "no such data": ([], {"data": "/nowhere"}),
    "no such part": (["freeze=heart"], {}),
    "the memory is full": ([], {"callbacks": [Fails(torch.OutOfMemoryError("no memory"))]}),
    "the process' memory is full": ([], {"callbacks": [Fails(MemoryError())]}),
    "no number": (["lr=1e5", "epochs=3"], {"callbacks": [Fails(UserError("The loss became nan"))]}),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_first_try_that_fails_leaves_nothing_in_the_way(name, data, tmp_path):
    changes, options = FAILURES[name]
    with pytest.raises(UserError) as caught:
        learn(tmp_path / "runs" / "run", options.pop("data", data), *changes, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs" / "run").exists()
    learn(tmp_path / "runs" / "run", data)


def test_a_folder_of_other_files_keeps_them_when_a_try_fails(data, tmp_path):
    (tmp_path / "log.txt").write_text("mine")
    with pytest.raises(UserError):
        learn(tmp_path, data, callbacks=[Fails(MemoryError())])
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


def test_what_a_killed_first_epoch_left_is_taken_over(data, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "recipe.yaml").write_text("name: other\nmodel: {name: cnn}\n")
    (tmp_path / "checkpoints" / ".last.ckpt.1.partial").write_bytes(b"half")
    learn(tmp_path, data)
    with pytest.raises(UserError, match="holds a run already"):
        learn(tmp_path, data)


def test_two_runs_at_once_are_told_apart(data, tmp_path):
    with (
        files.locked_folder(tmp_path),
        pytest.raises(UserError, match="Another process is training"),
    ):
        learn(tmp_path, data)
    learn(tmp_path, data)


def test_a_folder_is_free_once_the_process_that_held_it_has_died(tmp_path):
    held = "from foveal.foundation.files import locked_folder\n"
    held += "from pathlib import Path; import os, sys\n"
    held += "with locked_folder(Path(sys.argv[1])): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", held, str(tmp_path)]).returncode == 9
    with files.locked_folder(tmp_path):
        pass


@pytest.mark.parametrize("out", ["file/run", "file", "x" * 300, "\0"])
def test_a_folder_that_cannot_be_made_is_one_sentence(out, data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to") as caught:
        learn(tmp_path / out, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (errno.EROFS, "Read-only file system"),
        (errno.EACCES, "Permission denied"),
        (errno.ENOSPC, r"disk is full.*--resume"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_one_sentence(
    code, line, data, tmp_path, monkeypatch
):
    def refused(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("foveal.training.run_folder.write_recipe", refused)
    with pytest.raises(UserError, match=line) as caught:
        learn(tmp_path / "run", data)
    assert "run" in str(caught.value)


def test_a_prediction_that_failed_before_its_first_shard_is_taken_over(data, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for out in (tmp_path / "rows", tmp_path / "rows.parquet"):
        with pytest.raises(UserError, match="no GPU"):
            predict("mnist-cnn", data, out, device="cuda")
        found = predict("mnist-cnn", data, out, batch_size=3)
        assert (found.images, found.errors) == (32, 0)
        with pytest.raises(UserError, match="holds a run already"):
            predict("mnist-cnn", data, out, batch_size=3)
    assert Path(tmp_path / "rows.parquet").is_file()
