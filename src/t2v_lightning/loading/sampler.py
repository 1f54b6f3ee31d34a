"""One process's share of an order of positions, in batches."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler


class ShardedSampler(DistributedSampler[Any]):
    """This process's share of an order, in the same number of batches on all processes.

    A subclass of `DistributedSampler`, so that Lightning does not replace it. Positions at or beyond `padding`
    fill up the last batches.

    Args:
        order: int64 [n], positions to visit.
        padding: first position that stands for no item.
        batch_size: positions in a batch of this process.
        rank: of this process among those that share the order.
        world_size: number of these processes.

    >>> [list(ShardedSampler(torch.tensor([3, 0, 2, 4, 1]), 5, 2, rank, world_size=2)) for rank in (0, 1)]
    [[[3, 2], [1]], [[0, 4], [5]]]
    """

    def __init__(
        self, order: Tensor, padding: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(order, num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        extra = -len(order) % world_size
        padded = torch.cat([order, padding + torch.arange(extra)])
        self.batches: Sequence[Tensor] = padded[rank::world_size].split(batch_size)
        self.start = 0

    def __iter__(self) -> Iterator[Any]:
        return (batch.tolist() for batch in self.batches[self.start :])

    def __len__(self) -> int:
        return len(self.batches)
