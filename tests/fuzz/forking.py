"""A process that imports the dependencies of all commands once, then runs each in a fork.

It is started by `Sandbox` and reads requests from stdin, one line of JSON each. The fork may write
only in one folder, and its time and memory are limited.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

CPU_SECONDS = 60
IDLE_SECONDS = 60  # without any CPU time, while no process waits for a CPU or a disk
ADDRESS_BYTES = 4_000 * 2**20  # of address space beyond that of the imports
UNEXPECTED = 70  # an exit status that no command uses
HUNG = "hung"  # reported with the accesses outside the folder

# Audit events of changes to files, and of starting a program.
WRITES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate"}
RUNS = {"os.exec", "os.posix_spawn", "os.system", "subprocess.Popen"}
SECRETS = ("/etc/passwd", "/proc/self/mem")  # paths in hostile settings, which may not be read


def main() -> None:
    """Handle requests until stdin ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep prints of imports out of the replies
    _import_dependencies()
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        replies.write(json.dumps(run(**json.loads(line))) + "\n")
        replies.flush()


def _import_dependencies() -> None:
    import lightning  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import torch
    from PIL import Image

    Image.init()  # imports a module for each format
    torch.set_num_threads(1)


def run(arguments: list[str], allowed_folder: str) -> dict[str, Any]:
    """Run `foveal ARGUMENTS` in a fork, which may write only to `allowed_folder`.

    Returns:
        The fields of `sandbox.Outcome`.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Pipe() as report:
        before = _resident_bytes()
        child = os.fork()
        if child == 0:
            _run_in_child(
                arguments, Path(allowed_folder), out.fileno(), err.fileno(), report.writing
            )
        hung = not _wait_for(child)
        _, status, usage = os.wait4(child, 0)
        _end_session(child)  # remaining processes of the command
        return {
            "status": os.waitstatus_to_exitcode(status),
            "out": _read_text(out),
            "err": _read_text(err),
            "escapes": report.read() + (HUNG if hung else ""),
            "megabytes": max(0, usage.ru_maxrss * 1024 - before) // 2**20,
        }


class Pipe:
    """A pipe to which the child writes one line for each access outside its folder."""

    def __enter__(self) -> "Pipe":
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        os.set_blocking(self.writing, False)
        return self

    def read(self) -> str:
        """Return what has been written."""
        try:
            return os.read(self.reading, 60_000).decode("utf-8", "backslashreplace")
        except BlockingIOError:
            return ""

    def __exit__(self, *_: object) -> None:
        os.close(self.reading)
        os.close(self.writing)


def _read_text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "backslashreplace")


def _resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _wait_for(child: int) -> bool:
    """Wait until a child ends; kill it and return False if it has been idle for too long."""
    descriptor = os.pidfd_open(child)
    try:
        last_ticks, idle_seconds = -1, 0
        while not select.select([descriptor], [], [], 1)[0]:
            ticks, is_active = _activity(child)
            idle_seconds = 0 if is_active or ticks != last_ticks else idle_seconds + 1
            last_ticks = ticks
            if idle_seconds >= IDLE_SECONDS:
                _end_session(child)
                return False
        return True
    finally:
        os.close(descriptor)


def _activity(session: int) -> tuple[int, bool]:
    """Return the CPU time of a session in clock ticks, and whether any of its processes is active.

    A process is active if it runs, or waits for a CPU or a disk.
    """
    ticks, is_active = 0, False
    for fields in _processes(session):
        ticks += int(fields[11]) + int(fields[12])  # utime and stime
        is_active |= fields[0] in "RD"
    return ticks, is_active


def _processes(session: int) -> Iterator[list[str]]:
    """Yield the fields of /proc/PID/stat, from the state on, of each process of a session."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # the process has ended
        if int(fields[3]) == session:  # the session ID
            yield fields


def _end_session(leader: int) -> None:
    """Kill the remaining processes of a session, which are in the group of its leader."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # all processes have ended


def _run_in_child(
    arguments: list[str], allowed_folder: Path, out: int, err: int, report: int
) -> NoReturn:
    """Run the command with its output and its report redirected, then exit with its status."""
    status = UNEXPECTED
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        os.chdir(allowed_folder)
        tempfile.tempdir = str(allowed_folder)
        _limit_resources()
        sys.addaudithook(_audit_hook(allowed_folder, report))
        from foveal.cli import main as command

        command(arguments)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _limit_resources() -> None:
    """Limit the time and memory of this process, and kill it when its parent ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    address_limit = used_bytes + ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (address_limit, address_limit))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _audit_hook(allowed_folder: Path, report: int) -> Any:
    """Return an audit hook that reports writes outside a folder, and program starts."""
    folder = os.path.realpath(allowed_folder)
    is_running = False  # whether the hook runs: its own accesses are audit events too

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal is_running
        if is_running:
            return
        is_running = True
        try:
            for escape in _escapes(event, values, folder):
                os.write(report, f"{event} {escape}\n".encode("utf-8", "backslashreplace"))
        finally:
            is_running = False

    return hook


def _escapes(event: str, values: tuple[Any, ...], folder: str) -> Iterator[str]:
    """Yield a description of each access outside the folder in an audit event."""
    if event in RUNS or event == "socket.connect":
        yield f"{values!r:.300}"
    elif event == "open":
        path, _, flags = values
        if not isinstance(path, str | bytes):
            return
        is_write = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if os.fsdecode(path) in SECRETS or (is_write and not _may_write(path, folder)):
            yield repr(path)
    elif event in WRITES or event == "shutil.rmtree":
        for path in values[:2]:
            if isinstance(path, str | bytes | os.PathLike) and not _may_write(path, folder):
                yield repr(path)


def _may_write(path: str | bytes | os.PathLike[str], folder: str) -> bool:
    """Return whether a path is in the folder, or one that is harmless to write to."""
    real_path = os.path.realpath(os.fsdecode(path))
    is_in_folder = real_path == folder or real_path.startswith(folder + os.sep)
    return is_in_folder or real_path == os.devnull or real_path.startswith("/proc/")


if __name__ == "__main__":
    main()
