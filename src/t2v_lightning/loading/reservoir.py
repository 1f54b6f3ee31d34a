"""A sample of a stream whose length nobody knows, in one pass and in constant memory."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Any

import torch

from t2v_lightning.functional.random import random_bits

_DRAW = 1 << 40  # a draw of the counter-based generator that no other use of a seed reaches
_BLOCK = 4096


class Reservoir:
    """Chooses a seeded sample of a stream, in which every stratum is represented.

    The seed and its position give each item a random number, and of each stratum the items with the smallest numbers
    are kept. That is a uniform sample without replacement, as Vitter's algorithm R draws it (*Random sampling with a
    reservoir*, ACM TOMS 11, 1985), and it depends on nothing that a resumed run would have to remember.

    Args:
        size: items to keep.
        seed: of the random numbers.
        balanced: keep as nearly equal numbers of all strata as these allow. Otherwise the sample is uniform over the
            stream, except that the first choice of each stratum stays.

    >>> reservoir = Reservoir(4, balanced=True)
    >>> for position in range(1000):
    ...     _ = reservoir.offer(position, stratum=int(position % 100 == 0))
    >>> sorted(reservoir.kept().values())
    [0, 0, 1, 1]
    """

    def __init__(self, size: int, seed: int = 0, balanced: bool = True) -> None:
        self.size, self.seed, self.balanced = size, seed, balanced
        self._heaps: dict[
            int, list[tuple[int, int]]
        ] = {}  # stratum -> (-number, position), largest number first
        self._limits: dict[int, int] = {}  # stratum -> the smallest number that had to go
        self._count = 0
        self._block, self._numbers = -1, list[int]()

    def offer(self, position: int, stratum: int = 0) -> int | None:
        """Decides on the item at a position.

        Args:
            position: of the item in the stream; positions must not come twice.
            stratum: of the item.

        Returns:
            The position of the item that has to go: `position` itself if the item is not kept, None if none has to.

        Raises:
            ValueError: there are more strata than `size`.
        """
        number = self._number(position)
        if stratum in self._limits and number >= self._limits[stratum]:
            return position
        heappush(self._heaps.setdefault(stratum, []), (-number, position))
        if self._count < self.size:
            self._count += 1
            return None
        if len(self._heaps) > self.size:
            raise ValueError(
                f"max_samples={self.size} cannot hold all classes, of which the stream has had {len(self._heaps)} so "
                "far; use at least one image per class"
            )
        fullest = max(self._heaps, key=self._excess)
        evicted, gone = heappop(self._heaps[fullest])
        self._limits[fullest] = -evicted
        return gone

    def kept(self) -> dict[int, int]:
        """The stratum of each kept position, in the order of the stream."""
        return dict(sorted((position, s) for s, heap in self._heaps.items() for _, position in heap))

    def state(self) -> dict[str, Any]:
        """What JSON can hold of it; see `restore`."""
        return {"kept": list(self.kept().items()), "limits": list(self._limits.items())}

    def restore(self, kept: Iterable[tuple[int, int]], limits: Iterable[tuple[int, int]]) -> None:
        """Goes on from a `state` of the same size, seed and balance."""
        self._heaps, self._limits = {}, dict(limits)
        for position, stratum in kept:
            self._heaps.setdefault(stratum, []).append((-self._number(position), position))
        for heap in self._heaps.values():
            heapify(heap)
        self._count = sum(map(len, self._heaps.values()))

    def _excess(self, stratum: int) -> tuple[int, int]:
        """The stratum where this is largest has to give an item away."""
        heap = self._heaps[stratum]
        return len(heap) if self.balanced else min(len(heap), 2), -heap[0][0]

    def _number(self, position: int) -> int:
        block, place = divmod(position, _BLOCK)
        if block != self._block:
            positions = torch.arange(block * _BLOCK, (block + 1) * _BLOCK)
            self._block = block
            self._numbers = random_bits(self.seed, _DRAW, positions, 1)[:, 0].tolist()
        return self._numbers[place]
