"""Memory that is freed stays with the process, ready for the next tensor."""

import ctypes
import os

# From glibc's malloc.h. A block from the threshold up is a mapping of its own, given back when it is freed.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_BLOCKS_BELOW, _KEPT_AT_MOST = 1 << 30, 2**31 - 1
_OLDER_TAKE = 1 << 25
"""The highest threshold that older versions of glibc take; after a refusal theirs would stay at 128 KiB."""


def keep_freed_memory() -> None:
    """Has glibc keep blocks below 1 GiB (older versions: 32 MiB) when they are freed, up to 2 GiB of them.

    Activations are allocated and freed all the time, and pages that go back to the system come back empty, one page
    fault each: a fifth of the time of a fit to images of 224 pixels on two CPUs. It concerns the whole process, so a
    program calls it, never a library. Without effect where the C library is another one, or where the environment has
    its own wishes (`MALLOC_...`).
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; TypeError: Windows
        return
    if not mallopt(_M_MMAP_THRESHOLD, _BLOCKS_BELOW):
        mallopt(_M_MMAP_THRESHOLD, _OLDER_TAKE)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_MOST)
