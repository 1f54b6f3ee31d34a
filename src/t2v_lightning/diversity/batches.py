"""Batches of a dataset, drawn at random: each item is in one of them, as far as the dataset goes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset, Subset

BUFFER = 16
"""Batches of a stream that are held at a time, out of which the next one is drawn."""


class Batches:
    """Batches of equal size; they are drawn anew, and are the same ones, each time they are gone through.

    Of a dataset with a length they are disjoint slices of a seeded permutation. Where it is too small for all of them,
    each permutation gives as many as it has, so that batches share items. Of a stream, which is read once and only as
    far as it is needed, they are disjoint, each drawn from the next `BUFFER` batches.

    Args:
        dataset: map-style, or any iterable of items.
        batches: how many.
        batch_size: items of each.
        seed: of the draws.

    Attributes:
        disjoint: whether no two batches share an item.

    Raises:
        TypeError, ValueError: too few or no whole numbers of batches or items; a dataset smaller than a batch.

    >>> [sorted(batch) for batch in Batches(range(8), 4, 2)]
    [[0, 4], [3, 7], [2, 5], [1, 6]]
    >>> Batches(range(8), 5, 2).disjoint
    False
    """

    def __init__(self, dataset: Any, batches: int, batch_size: int, seed: int = 0) -> None:
        for name, value, least in (("batches", batches, 4), ("batch_size", batch_size, 2), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be a whole number, got {value!r}")
            if value < least:
                raise ValueError(f"{name}={value}; at least {least} are needed")
        self.dataset, self.number, self.batch_size, self.seed = dataset, batches, batch_size, seed
        self.stream = not is_map_style(dataset)
        if self.stream:
            if not isinstance(dataset, Iterable):
                raise TypeError(
                    f"the dataset is a {type(dataset).__name__}; it must have a length and items by number, or be "
                    "iterable"
                )
            self.disjoint = True
        else:
            if len(dataset) < batch_size:
                raise ValueError(
                    f"the dataset has {len(dataset)} items, and a batch takes {batch_size}; use a smaller batch_size"
                )
            self.disjoint = len(dataset) >= batches * batch_size

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[Any]:
        return self._of_stream() if self.stream else self._of_dataset()

    def _of_dataset(self) -> Iterator[Any]:
        size, each = len(self.dataset), len(self.dataset) // self.batch_size
        generator = torch.Generator().manual_seed(self.seed)
        for number in range(self.number):
            place = number % each
            if place == 0:
                order = torch.randperm(size, generator=generator).tolist()
            yield Subset(self.dataset, order[place * self.batch_size : (place + 1) * self.batch_size])

    def _of_stream(self) -> Iterator[list[Any]]:
        source = iter(self.dataset)
        held: list[Any] = []
        generator = random.Random(self.seed)
        for number in range(self.number):
            held += islice(source, BUFFER * self.batch_size - len(held))
            if len(held) < self.batch_size:
                raise ValueError(
                    f"the stream ended in batch {number} of {self.number}, after "
                    f"{number * self.batch_size + len(held)} items; use fewer batches or a smaller batch_size"
                )
            generator.shuffle(held)
            yield held[: self.batch_size]
            del held[: self.batch_size]


def is_map_style(dataset: Any) -> bool:
    """Whether it has a length and items by number."""
    return (
        hasattr(dataset, "__getitem__")
        and hasattr(dataset, "__len__")
        and not isinstance(dataset, IterableDataset)
    )
