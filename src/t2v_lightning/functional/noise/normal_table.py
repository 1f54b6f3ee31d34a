"""Gaussian numbers for whole activation maps, read from a table at hashed places.

Drawing a number for every output of every layer would take a large part of a training step. Reading runs of a
fixed table is about ten times faster, and makes the numbers a pure function of (seed, stream, index): the same
on every device, in every precision, and for any split of the samples over batches or processes.
"""

import torch
from torch import Tensor

from t2v_lightning.functional.random import random_bits

_SIZE = 1 << 24
_RUN = 1 << 14  # consecutive numbers that share one hashed place


class NormalTable:
    """Standard normal numbers in runs of 16,384 that start anywhere in a table of 16.8 million.

    The table has mean 0 and variance 1. Two different outputs read the same entry with probability 6e-8, which is
    also the correlation between any two numbers; a whole run is used twice only when two hashes agree.

    Args:
        seed: of the table and of the places.

    >>> table = NormalTable(seed=0)
    >>> both = table.read(stream=3, index=torch.tensor([5, 7]), size=10)
    >>> alone = table.read(stream=3, index=torch.tensor([7]), size=10)
    >>> bool((both[1] == alone[0]).all())
    True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._numbers: Tensor | None = None

    def read(self, stream: int, index: Tensor, size: int) -> Tensor:
        """`size` numbers for each sample.

        Args:
            stream: distinguishes the uses of one sample (the number of a layer, say).
            index: int64 [N], the samples' own numbers.
            size: how many numbers a sample needs.

        Returns:
            float32 [N, size], a new tensor on the device of `index`.
        """
        if self._numbers is None or self._numbers.device != index.device:
            self._numbers = _numbers(self.seed).to(index.device)
        run = min(_RUN, size)
        places = random_bits(self.seed, stream, index, -(-size // run)) & (_SIZE - 1)
        runs = torch.index_select(self._numbers.unfold(0, run, 1), 0, places.flatten())
        return runs.view(len(index), places.shape[1] * run)[:, :size]


def _numbers(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(int(random_bits(seed, 0, torch.zeros(1, dtype=torch.int64), 1)))
    numbers = torch.randn(_SIZE, generator=generator, dtype=torch.float32)
    numbers = (numbers - numbers.mean(dtype=torch.float64).float()) / numbers.std()
    return torch.cat([numbers, numbers[:_RUN]])
