"""How the C library treats memory that tensors have left."""

import ctypes
import platform

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Have the process keep freed memory for its next tensors; return whether it can.

    glibc gives large blocks back at once, and the system clears them page by page when the next
    step asks for the same again: a third of the time of training a small net on a CPU. Kept, they
    are there. The process holds on to its peak of memory until it ends. Elsewhere than on Linux
    with glibc nothing happens.

    Threads that are started later take memory from where all do: an arena of their own holds 64 MB
    in one piece at most, and what is larger would be given back at once after all.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: 2**31 - 1,
        _M_TOP_PAD: 2**28,
        _M_ARENA_MAX: 1,
    }
    return all(mallopt(option, value) == 1 for option, value in settings.items())
