"""Memory that tensors have freed is kept for the next tensors.

Memory that the process must request again causes page faults, which are counted.
"""

import platform
import subprocess
import sys

import pytest

# Prints the page faults of allocating a large tensor four times. Arguments: whether to keep freed
# memory (keep or free), and the thread that allocates (main or worker).
_FAULTS = """
import resource, sys, torch
from concurrent.futures import ThreadPoolExecutor
from foveal.foundation.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
SIZE = 17 * 2**20  # values: 68 MiB, 17,408 pages
def faults():
    for _ in range(20):  # the first allocations do not reuse memory
        torch.ones(SIZE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(SIZE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults() if sys.argv[2] == "main" else ThreadPoolExecutor(1).submit(faults).result())
"""


def count_page_faults(mode, thread):
    command = [sys.executable, "-c", _FAULTS, mode, thread]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be configured")
@pytest.mark.parametrize("thread", ["main", "worker"])
def test_tensor_reuses_the_memory_of_the_previous_one(thread):
    assert count_page_faults("keep", thread) * 20 < count_page_faults("free", thread)
