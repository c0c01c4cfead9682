"""The memory allocator while training on Linux: what is freed is kept.

On a CPU MLX takes the memory of each operation's result from malloc and frees it soon after. glibc hands large blocks
back to the system, which has to clear every page anew for the next ones; see mallopt(3).
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # M_… of <malloc.h>
KEPT = {MMAP_THRESHOLD: 1 << 30, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 1 << 26}  # bytes
# Where glibc's own thresholds end up in a process that frees large blocks.
USUAL = {MMAP_THRESHOLD: 1 << 25, TRIM_THRESHOLD: 1 << 26, TOP_PAD: 1 << 17}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside the block freed memory stays with the process; afterwards the system gets it back. Only with glibc."""
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    _set(libc, KEPT)
    try:
        yield
    finally:
        _set(libc, USUAL)
        libc.malloc_trim(ctypes.c_size_t(0))


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)
