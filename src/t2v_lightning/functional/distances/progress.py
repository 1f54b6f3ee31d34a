"""Progress of a long computation of distances."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Lock

Progress = Callable[[int, int], object]
"""Called with the number of finished pairs and that of all pairs."""


def pair_counter(progress: Progress | bool | None, pairs: int) -> Callable[[int], None]:
    """A function that adds up the pairs finished by several threads, and calls `progress` with the sum.

    Args:
        progress: True prints the percentage to stderr, False and None do nothing.
        pairs: number of all pairs.

    >>> advance = pair_counter(lambda done, pairs: print(f"{done} of {pairs}"), 5)
    >>> advance(2), advance(3)
    2 of 5
    5 of 5
    (None, None)
    """
    if progress is None or progress is False:
        return lambda done: None
    tell = _print_share if progress is True else progress
    lock, finished = Lock(), 0

    def advance(done: int) -> None:
        nonlocal finished
        with lock:
            finished += done
            tell(finished, pairs)

    return advance


def _print_share(done: int, pairs: int) -> None:
    end = "\n" if done == pairs else ""
    print(f"\rdistances: {done / pairs:.0%}", end=end, file=sys.stderr, flush=True)
