"""Ctrl-C and SIGTERM: a line, the right status, and nothing cut short."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foveal import cli
from foveal.foundation import files
from foveal.foundation.interrupts import Terminated, deferred_signals, resumable, terminable

SIGNALS = {"Ctrl-C": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}


def test_sigterm_is_raised_and_what_was_there_before_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def hold_back(numbers, done):
    """Raise signals in a block that holds them back, and then note that it went on."""
    with terminable(), deferred_signals():
        for number in numbers:
            signal.raise_signal(number)
        done.append(numbers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_block_that_holds_signals_back_is_finished_first(number):
    done = []
    with pytest.raises(KeyboardInterrupt):
        hold_back([number], done)
    assert done == [[number]]


def test_the_second_signal_acts_at_once():
    done = []
    with pytest.raises(Terminated):
        hold_back([signal.SIGTERM, signal.SIGTERM], done)
    assert done == []


def write_and_signal(path):
    with files.whole_file(path) as partial:
        partial.write_text("half")
        signal.raise_signal(signal.SIGINT)
        partial.write_text("whole")


def test_a_file_is_whole_when_a_signal_arrives_while_it_is_written(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_and_signal(tmp_path / "file")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize("name", SIGNALS)
def test_a_command_that_is_stopped_says_how_to_go_on(name, run, monkeypatch):
    number, status = SIGNALS[name]

    @resumable("Give the same command again.")
    def stopped(*arguments, **options):
        signal.raise_signal(number)

    monkeypatch.setattr("foveal.evaluation.evaluate.zoo_cards", stopped)
    done = run("models", "--json")
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("Give the same command again.\n")


@pytest.mark.parametrize("name", ["train", "sweep", "predict", "export", "serve", "compare"])
def test_commands_that_take_long_note_how_to_go_on(name):
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupt(getattr(cli, name))
    assert "command" in caught.value.__notes__[0]


def interrupt(module):
    """Call a command whose body is cut off at its first statement."""
    command = getattr(module, module.__name__.rpartition(".")[2])

    def cut_off(*_):
        raise KeyboardInterrupt

    sys.settrace(
        lambda frame, *_: cut_off() if frame.f_code is command.__wrapped__.__code__ else None
    )
    try:
        arguments = command.__wrapped__.__code__.co_argcount
        command(*[None] * arguments)
    finally:
        sys.settrace(None)


# Sends itself a signal once an epoch has begun of which there is no checkpoint yet.
_TRAINS = """
import os, signal, sys
from foveal.training import batches
from foveal.cli import main

class Batches(batches.Batches):
    def __iter__(self):
        if self.seed is not None and self.epoch() == 1:
            os.kill(os.getpid(), int(sys.argv[1]))
        return super().__iter__()

import foveal.training.fitting as fitting
fitting.Batches = Batches
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_training_that_is_stopped_leaves_no_model_and_a_line(name, command, tmp_path):
    number, status = SIGNALS[name]
    arguments = {
        "train": ["train", "mnist-cnn", "--quiet"],
        "sweep": ["sweep", "mnist-cnn"],
    }[command] + ["epochs=2", "data.limit=100"]
    arguments += ["--data", "mnist-5k", "--out", str(tmp_path / "run")]
    ended = subprocess.run(
        [sys.executable, "-c", _TRAINS, str(int(number)), *arguments, "model.widths=[4]"],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert (ended.returncode, ended.stdout) == (status, "")
    assert "Traceback" not in ended.stderr
    assert "to continue" in ended.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("model.safetensors"))
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
    assert list(tmp_path.rglob("last.ckpt"))


_PREDICTS = """
import os, signal, sys
from foveal.deployment.batch import local
from foveal.cli import main

made = local.predict_here
def predict_here(*arguments):
    for index, batch in enumerate(made(*arguments)):
        if index == 2:
            os.kill(os.getpid(), int(sys.argv[1]))
        yield batch

local.predict_here = predict_here
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
def test_a_prediction_that_is_stopped_keeps_what_is_finished(name, tmp_path):
    from PIL import Image

    number, status = SIGNALS[name]
    (tmp_path / "images").mkdir()
    for index in range(6):
        Image.new("L", (28, 28), index).save(tmp_path / "images" / f"{index}.png")
    arguments = ["predict", "mnist-cnn", str(tmp_path / "images"), "--out", str(tmp_path / "rows")]
    arguments += ["--shard-size", "1", "--quiet"]
    ended = subprocess.run(
        [sys.executable, "-c", _PREDICTS, str(int(number)), *arguments],
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (status, "")
    assert ended.stderr.splitlines()[-1].endswith("--resume to continue.")
    assert len(list((tmp_path / "rows").glob("part-*.parquet"))) == 2
    again = subprocess.run(
        [sys.executable, "-m", "foveal", *arguments, "--resume"], capture_output=True, text=True
    )
    assert (again.returncode, len(list((tmp_path / "rows").glob("part-*.parquet")))) == (0, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
def test_a_server_that_is_stopped_says_so(name):
    number, status = SIGNALS[name]
    command = [sys.executable, "-m", "foveal", "serve", "mnist-cnn", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("http://" in line for line in lines)
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait() == status, rest
    assert "Traceback" not in rest
    assert rest.endswith("Run the same command to serve again.\n")


def test_an_export_that_is_stopped_leaves_nothing(tmp_path, run, monkeypatch):
    def stopped(path, content):
        with files.whole_file(path) as partial:
            partial.write_bytes(content[:10])
            raise KeyboardInterrupt

    monkeypatch.setattr("foveal.deployment.onnx.files.write_bytes", stopped)
    done = run("export", "mnist-cnn", "--out", tmp_path / "x.onnx")
    assert done.returncode == 130
    assert not list(Path(tmp_path).iterdir())
