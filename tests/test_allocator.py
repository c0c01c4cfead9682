"""What is freed inside the block is used again without the system; afterwards the system gets it back."""

import json
import platform
import subprocess
import sys

import pytest

from mlx_router.allocator import freed_memory_kept

FAULTS = """
import ctypes, json, resource, sys
from mlx_router.allocator import freed_memory_kept
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def faults(size=200 << 20):
    \"\"\"Pages that the system cleared for a block of 200 MB, written and freed again.\"\"\"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    ctypes.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

outside = faults()
with freed_memory_kept():
    first, again = faults(), faults()
    inside = resident()
json.dump({"outside": outside, "first": first, "again": again, "given_back": inside - resident()}, sys.stdout)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told anything")
def test_a_freed_block_is_used_again_and_given_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(done.stdout)
    # Large pages make few faults of many.
    assert told["first"] > 20
    assert told["again"] < told["first"] / 10
    assert told["given_back"] > 150 << 20


def test_an_error_inside_goes_through() -> None:
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        raise ZeroDivisionError


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("nothing is to be called"))
    with freed_memory_kept():
        pass
