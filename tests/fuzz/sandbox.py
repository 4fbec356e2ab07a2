"""A sandbox for commands: confined to a folder and limited in time and memory."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_MEGABYTES = 1_500  # of memory beyond that of the imports
MAX_LINE = 1_500  # characters of an error line, which may contain long paths
# Characters that change how a terminal shows text, such as escape sequences.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Outcome:
    """The result of a command.

    Attributes:
        status: exit status; negative if a signal ended the command.
        out: stdout.
        err: stderr.
        escapes: accesses outside its folder, such as writes and program starts.
        megabytes: memory beyond that of the imports.
    """

    status: int
    out: str
    err: str
    escapes: str
    megabytes: int

    def problem(self) -> str:
        """Return a description of what is wrong with the outcome, or "" if nothing is."""
        if self.escapes:
            return f"escaped: {self.escapes[:500]}"
        if self.status == -signal.SIGXCPU:
            return "took too long"
        if self.megabytes > MAX_MEGABYTES:
            return f"took {self.megabytes:,} MB"
        if self.status not in (0, 1, 2) or "Traceback" in self.err:
            return f"exit status {self.status}: {self.err[-1500:]}"
        if CONTROL.search(self.out + self.err):
            return f"control characters on the terminal: {self.out + self.err!r:.1500}"
        last_line = self.err.rstrip().rpartition("\n")[2]
        if self.status and not 0 < len(last_line) <= MAX_LINE:
            return f"failed without a one-line error: {self.err[-1500:]!r}"
        return ""


class Sandbox:
    """A process that runs commands in forks of itself, each within one folder."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("forking.py")
        # Coverage would write outside the folder.
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
        }
        # Threads do not survive a fork, so none are started.
        environment = {**inherited, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._reply() == "ready"

    def run(self, arguments: Sequence[str], allowed_folder: Path) -> Outcome:
        """Run `foveal ARGUMENTS`, which may write only to `allowed_folder`."""
        assert self._process.stdin is not None
        request = {"arguments": list(arguments), "allowed_folder": str(allowed_folder)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._reply()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _reply(self) -> str:
        """Return the next line that the process prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
