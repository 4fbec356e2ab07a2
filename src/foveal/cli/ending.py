"""The end of a command's process: without the unloading of its libraries."""

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps


def ends_at_once(main: Callable[[list[str] | None], None]) -> Callable[..., None]:
    """Have `main()`, when it is a whole process, end it as soon as Python has cleaned up.

    The C library would go on to unload every library: CUDA's alone, which torch loads even where
    there is no GPU, take 0.2 s and another 120 MB. With arguments, `main` is a plain function.
    """

    @wraps(main)
    def run(arguments: list[str] | None = None) -> None:
        if arguments is not None:
            return main(arguments)
        status = 1  # of an error that nobody expected
        # The first handler is the last to run: after threads have been joined, and after those of
        # all modules that are imported from here on.
        atexit.register(lambda: _end(status))
        try:
            main(None)
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
            raise

    return run


def _end(status: int) -> None:
    with suppress(OSError, ValueError):  # what cannot be written, Python reports in its own way
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(status)
