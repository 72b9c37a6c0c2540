"""Memory that a process keeps for itself instead of asking the system for it again in every training step."""

import ctypes
import os
import platform

# glibc's malloc.h. Above M_MMAP_THRESHOLD it maps every block anew and gives it back when it is freed: hundreds of MB
# a step, each page of which the system clears and enters once more.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
KEEP = (
    (M_MMAP_MAX, 0),  # no mapping of single blocks
    (M_TRIM_THRESHOLD, 2**31 - 1),  # what is freed is not given back
    (M_TOP_PAD, 500_000_000),  # bytes to ask for at a time
    (M_ARENA_MAX, 1),  # other threads' memory from the same place, where it can be used again
)

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # of PyTorch, which reads it at its first tensor
_given = os.environ.get(HUGE_PAGES)


def prefer_huge_pages(wanted: bool) -> None:
    """Whether PyTorch's large tensors on the CPU go to huge pages, unless the environment says already.

    They make it cheaper to map memory anew, as every training step does.
    """
    if _given is None:
        os.environ[HUGE_PAGES] = str(int(wanted))


def keep_memory() -> bool:
    """Have malloc keep freed memory for this process, for good; call it before there are threads and tensors.

    Returns whether that could be done: with glibc on Linux. Elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = all(mallopt(option, value) == 1 for option, value in KEEP)
    if kept:
        prefer_huge_pages(False)  # mapped once, it gains nothing by them, and their alignment breaks it up
    return kept
