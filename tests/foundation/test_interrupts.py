"""Ctrl-C and SIGTERM: a one-line message, the exit status, and no partial files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foveal import cli
from foveal.foundation import files
from foveal.foundation.interrupts import Terminated, deferred_signals, resumable, terminable

# The signal and the exit status that it leads to.
SIGNALS = {"Ctrl-C": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}


def test_sigterm_is_raised_and_its_handler_restored():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def raise_in_deferring_block(numbers, completed):
    """Raise signals in a block that defers them.

    If the block is not interrupted by them, `numbers` is appended to `completed`.
    """
    with terminable(), deferred_signals():
        for number in numbers:
            signal.raise_signal(number)
        completed.append(numbers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_block_that_defers_signals_is_completed_before_the_interrupt(number):
    completed = []
    with pytest.raises(KeyboardInterrupt):
        raise_in_deferring_block([number], completed)
    assert completed == [[number]]


def test_second_signal_interrupts_immediately():
    completed = []
    with pytest.raises(Terminated):
        raise_in_deferring_block([signal.SIGTERM, signal.SIGTERM], completed)
    assert completed == []


def write_and_signal(path):
    with files.atomic_file(path) as partial:
        partial.write_text("half")
        signal.raise_signal(signal.SIGINT)
        partial.write_text("whole")


def test_file_is_complete_when_a_signal_arrives_during_the_write(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_and_signal(tmp_path / "file")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize("name", SIGNALS)
def test_interrupted_command_explains_how_to_continue(name, run, monkeypatch):
    number, status = SIGNALS[name]

    @resumable("Give the same command again.")
    def interrupt_itself(*arguments, **options):
        signal.raise_signal(number)

    monkeypatch.setattr("foveal.evaluation.evaluate.zoo_cards", interrupt_itself)
    done = run("models", "--json")
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("Give the same command again.\n")


@pytest.mark.parametrize("name", ["train", "sweep", "predict", "export", "serve", "compare"])
def test_long_commands_explain_how_to_continue(name):
    with pytest.raises(KeyboardInterrupt) as error:
        run_interrupted(getattr(cli, name))
    assert "command" in error.value.__notes__[0]


def run_interrupted(module):
    """Run the command that is named like its module, and interrupt it at its first statement."""
    command = getattr(module, module.__name__.rpartition(".")[2])

    def raise_interrupt(*_):
        raise KeyboardInterrupt

    previous_trace = sys.gettrace()  # for instance that of a coverage measurement
    sys.settrace(
        lambda frame, *_: (
            raise_interrupt() if frame.f_code is command.__wrapped__.__code__ else None
        )
    )
    try:
        argument_count = command.__wrapped__.__code__.co_argcount
        command(*[None] * argument_count)
    finally:
        sys.settrace(previous_trace)


# Trains, and sends itself a signal at the start of the second epoch, before that epoch has a
# checkpoint. Arguments: number of the signal, then those of `foveal`.
_TRAIN_AND_SIGNAL = """
import os, signal, sys
from foveal.training import batches
from foveal.cli import main

class Batches(batches.Batches):
    def __iter__(self):
        if self.seed is not None and self.get_epoch() == 1:
            os.kill(os.getpid(), int(sys.argv[1]))
        return super().__iter__()

import foveal.training.fitting as fitting
fitting.Batches = Batches
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_interrupted_training_leaves_no_model_and_prints_one_line(name, command, tmp_path):
    number, status = SIGNALS[name]
    arguments = {
        "train": ["train", "mnist-cnn", "--quiet"],
        "sweep": ["sweep", "mnist-cnn"],
    }[command] + ["epochs=2", "data.limit=100"]
    arguments += ["--data", "mnist-5k", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN_AND_SIGNAL, str(int(number)), *arguments, "model.widths=[4]"],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
    assert "to continue" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("model.safetensors"))
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
    assert list(tmp_path.rglob("last.ckpt"))


# Predicts, and sends itself a signal after two batches. Arguments: number of the signal, then those
# of `foveal`.
_PREDICT_AND_SIGNAL = """
import os, signal, sys
from foveal.deployment.batch import local
from foveal.cli import main

original = local.predict_locally
def predict_locally(*arguments):
    for index, batch in enumerate(original(*arguments)):
        if index == 2:
            os.kill(os.getpid(), int(sys.argv[1]))
        yield batch

local.predict_locally = predict_locally
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
def test_interrupted_prediction_keeps_finished_shards(name, tmp_path):
    from PIL import Image

    number, status = SIGNALS[name]
    (tmp_path / "images").mkdir()
    for index in range(6):
        Image.new("L", (28, 28), index).save(tmp_path / "images" / f"{index}.png")
    arguments = ["predict", "mnist-cnn", str(tmp_path / "images"), "--out", str(tmp_path / "rows")]
    arguments += ["--shard-size", "1", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", _PREDICT_AND_SIGNAL, str(int(number)), *arguments],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.splitlines()[-1].endswith("--resume to continue.")
    assert len(list((tmp_path / "rows").glob("part-*.parquet"))) == 2
    resumed = subprocess.run(
        [sys.executable, "-m", "foveal", *arguments, "--resume"], capture_output=True, text=True
    )
    assert resumed.returncode == 0
    assert len(list((tmp_path / "rows").glob("part-*.parquet"))) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
def test_interrupted_server_exits_with_a_message(name):
    number, status = SIGNALS[name]
    command = [sys.executable, "-m", "foveal", "serve", "mnist-cnn", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("http://" in line for line in lines)
    process.send_signal(number)
    remaining_log = process.stderr.read()
    assert process.wait() == status, remaining_log
    assert "Traceback" not in remaining_log
    assert remaining_log.endswith("Run the same command to serve again.\n")


def test_interrupted_export_leaves_no_file(tmp_path, run, monkeypatch):
    def write_and_interrupt(path, content):
        with files.atomic_file(path) as partial:
            partial.write_bytes(content[:10])
            raise KeyboardInterrupt

    monkeypatch.setattr("foveal.deployment.onnx.files.write_bytes", write_and_interrupt)
    done = run("export", "mnist-cnn", "--out", tmp_path / "x.onnx")
    assert done.returncode == 130
    assert not list(Path(tmp_path).iterdir())
