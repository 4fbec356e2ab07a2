"""Ctrl-C and SIGTERM as exceptions, deferred while a file is written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; cleanup is the same as after Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` in the main thread when SIGTERM arrives during the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defer SIGINT and SIGTERM to the end of the block; a second signal takes effect at once."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    if threading.current_thread() is not threading.main_thread() or None in before.values():
        yield  # signal handlers run in the main thread only
        return
    arrived: list[int] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hold(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        restore()

    for number in SIGNALS:
        signal.signal(number, hold)
    try:
        yield
    finally:
        restore()
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def resumable(how: str) -> Iterator[None]:
    """Add a note to an interruption of the block: `how` to resume, a sentence for the user."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(how)
        raise
