"""Progress of a long computation of distances."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

Progress = Callable[[int, int], object]
"""Called with the number of finished pairs and that of all pairs."""


def pair_counter(progress: Progress | None, pairs: int) -> Callable[[int], None]:
    """A function that adds up the pairs finished by several threads, and calls `progress` with the sum.

    Args:
        progress: what to call; None for nothing.
        pairs: number of all pairs.

    Raises:
        TypeError: `progress` is not a function.

    >>> advance = pair_counter(lambda done, pairs: print(f"{done} of {pairs}"), 5)
    >>> advance(2), advance(3)
    2 of 5
    5 of 5
    (None, None)
    """
    if not progress:
        return lambda done: None
    if not callable(progress):
        raise TypeError(
            f"progress must be a function of the number of finished pairs and that of all pairs, got {progress!r}"
        )
    lock, finished = Lock(), 0

    def advance(done: int) -> None:
        nonlocal finished
        with lock:
            finished += done
            progress(finished, pairs)

    return advance
