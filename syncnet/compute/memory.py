"""Keep freed memory in this process instead of requesting it from the system again in every training step."""

import ctypes
import os
import platform

# glibc's malloc.h. Above M_MMAP_THRESHOLD it maps each block and unmaps it when freed: hundreds of MB per step, each
# page of which the system clears and maps again.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
KEEP = (
    (M_MMAP_MAX, 0),  # do not map single blocks
    (M_TRIM_THRESHOLD, 2**31 - 1),  # do not return freed memory
    (M_TOP_PAD, 500_000_000),  # bytes per request
    (M_ARENA_MAX, 1),  # one pool for all threads, so that freed memory is reused
)

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # of PyTorch, which reads it at its first tensor
_given = os.environ.get(HUGE_PAGES)


def prefer_huge_pages(wanted: bool) -> None:
    """Whether PyTorch places large CPU tensors in huge pages, unless the environment variable is already set.

    They make it cheaper to map memory again in every training step.
    """
    if _given is None:
        os.environ[HUGE_PAGES] = str(int(wanted))


def keep_memory() -> bool:
    """Make malloc keep freed memory for this process; call it before creating threads and tensors.

    A training step is up to twice as fast with it. Returns whether it took effect: only with glibc, on Linux.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = all(mallopt(option, value) == 1 for option, value in KEEP)
    if kept:
        prefer_huge_pages(False)  # no gain for memory mapped once, and their alignment fragments it
    return kept
