"""Shared fixtures."""

import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from foveal.cli import main


class Result(NamedTuple):
    """Exit status and output of a command that ran in this process."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys):
    """Return a function that runs a command in this process, where torch is already imported.

    The function returns the exit status and the output, also if the command fails.
    """

    def run_command(*arguments: str | Path) -> Result:
        capsys.readouterr()
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0
        return Result(status, *capsys.readouterr())

    return run_command


@pytest.fixture(scope="session")
def full_data() -> Path:
    """Return the folder of the full datasets, for tests that are marked `full_data`."""
    folder = os.environ.get("FOVEAL_DATA")
    if not folder:
        pytest.skip("FOVEAL_DATA is not set: set it to the folder of the full datasets")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let commands that tests start receive SIGINT, which a shell ignores for background jobs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
