"""Settings of the C library's allocator, for memory that tensors have freed."""

import ctypes
import platform

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Make the process keep freed memory for its next tensors; return whether it does.

    By default glibc returns large blocks to the system at once, and the system clears them page by
    page when the next step allocates them again. For a small network on a CPU, this takes a third
    of the training time. Blocks that are kept can be reused, but the process then holds its peak
    memory until it ends. The function has no effect on systems without glibc.

    Threads started later share one arena. If each had its own, blocks of more than 64 MB would
    still be returned at once, because they do not fit into a thread's arena.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        _M_MMAP_MAX: 0,  # no block is mapped separately, which would be returned when freed
        _M_TRIM_THRESHOLD: 2**31 - 1,  # bytes of free memory above which some are returned
        _M_TOP_PAD: 2**28,  # additional bytes of each request to the system
        _M_ARENA_MAX: 1,
    }
    return all(mallopt(option, value) == 1 for option, value in settings.items())
