"""What the process does with memory that it is done with."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # as glibc's malloc.h numbers them


def keep_memory() -> None:
    """Has glibc keep memory that was freed for the next tensor, as PyTorch itself does on a GPU.

    Left alone, it fetches each large tensor from the system, and gives back what lies free at the heap's end: the
    next tensor there is paged in anew, 4 KiB at a time. That is up to a tenth of a training step, and nothing is
    gained by it, since the next step takes the same memory again. Where there is no glibc, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
