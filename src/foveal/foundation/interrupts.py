"""Ctrl-C and SIGTERM as exceptions, deferred while a file is written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """Raised when SIGTERM is received; the cleanup is the same as after Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` in the main thread if SIGTERM is received during the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defer SIGINT and SIGTERM to the end of the block; a second signal takes effect at once."""
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    if threading.current_thread() is not threading.main_thread() or None in previous.values():
        # Handlers run only in the main thread, and one that Python did not set cannot be restored.
        yield
        return
    received: list[int] = []

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def hold(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    for number in SIGNALS:
        signal.signal(number, hold)
    try:
        yield
    finally:
        restore()
        if received:
            signal.raise_signal(received[0])


@contextmanager
def resumable(instructions: str) -> Iterator[None]:
    """If the block is interrupted, add instructions to resume to the exception as a note."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(instructions)
        raise
