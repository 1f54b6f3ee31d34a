"""Freed memory stays with the process, for the next tensor."""

import ctypes
import os

# From glibc's malloc.h. A block from the threshold up is a mapping of its own, given back when it is freed.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_BLOCKS_BELOW, _KEPT_AT_MOST = 1 << 30, 2**31 - 1
_OLDER_MAXIMUM = 1 << 25
"""The highest threshold that older versions of glibc accept; if they refuse one, theirs stays at 128 KiB."""


def keep_freed_memory() -> None:
    """Makes glibc keep freed blocks below 1 GiB (older versions: 32 MiB), up to 2 GiB in all.

    Activations are allocated and freed all the time. Pages that go back to the system return one page fault at a
    time, which took a fifth of a fit to images of 224 pixels on two CPUs. This changes the whole process, so a program
    calls it, never a library. It does nothing with another C library, or where the environment sets `MALLOC_...`.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; TypeError: Windows
        return
    if not mallopt(_M_MMAP_THRESHOLD, _BLOCKS_BELOW):
        mallopt(_M_MMAP_THRESHOLD, _OLDER_MAXIMUM)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_MOST)
