"""What several test files need."""

import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from foveal.cli import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys):
    """Run a command in this process, which has torch imported already."""

    def call(*arguments: str | Path) -> Done:
        capsys.readouterr()
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0
        return Done(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def full_data() -> Path:
    """The folder of the full datasets; tests that use it are marked `full_data`."""
    folder = os.environ.get("FOVEAL_DATA")
    if not folder:
        pytest.skip("FOVEAL_DATA is not set: it names the folder of the full datasets")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let commands that tests start receive SIGINT, which a shell ignores for background jobs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
