"""Seeded subsets and orders in which every class has its share."""

import torch
from torch import Tensor


def stratified_subset(strata: Tensor, size: int | None, balanced: bool, seed: int) -> Tensor:
    """Positions of a seeded subset in rising order, every stratum represented.

    A balanced subset takes as nearly equal numbers from all strata as these allow, which keeps the error of
    a class-balanced mean smallest; otherwise strata keep their shares.

    Args:
        strata: int64 [N], the stratum of each item.
        size: number of items; None for all.

    Returns:
        int64 [min(size, N)].

    Raises:
        ValueError: `size` is below the number of strata.

    >>> stratified_subset(torch.tensor([0, 0, 0, 0, 1, 1]), 4, True, seed=0).numel()
    4
    """
    present = strata.unique()
    if size is not None and size < len(present):
        raise ValueError(
            f"max_samples={size} cannot hold all {len(present)} classes; use at least one image per class"
        )
    if size is None or size >= len(strata):
        return torch.arange(len(strata))
    generator = torch.Generator().manual_seed(seed)
    ranks = _shuffled_ranks(strata, generator)
    # equal numbers: first one of every class, then a second one ...; shares: the same by relative rank
    counts = strata.bincount()[strata].double()
    key = ranks.double() if balanced else (ranks + 0.5) / counts
    key[ranks == 0] = -1.0
    tie = torch.rand(len(strata), dtype=torch.float64, generator=generator)
    order = (key + tie * 1e-6).argsort()
    return order[:size].sort().values


def stratified_order(strata: Tensor, seed: int) -> Tensor:
    """Seeded permutation in which every prefix holds about the same share of each stratum.

    Args:
        strata: int64 [N], the stratum of each item.

    Returns:
        int64 [N].

    >>> order = stratified_order(torch.tensor([0] * 4 + [1] * 2), seed=0)
    >>> sorted(order.tolist())
    [0, 1, 2, 3, 4, 5]
    """
    generator = torch.Generator().manual_seed(seed)
    ranks = _shuffled_ranks(strata, generator)
    offsets = torch.rand(int(strata.max()) + 1, dtype=torch.float64, generator=generator)
    return ((ranks + offsets[strata]) / strata.bincount()[strata]).argsort()


def equal_class_weights(classes: Tensor) -> Tensor:
    """Weights by which every class that occurs counts the same: float64 [N], summing to 1.

    Args:
        classes: int64 [N], the class of each item, at least 0.

    >>> equal_class_weights(torch.tensor([0, 2, 2]))
    tensor([0.5000, 0.2500, 0.2500], dtype=torch.float64)
    """
    counts = classes.bincount()
    return 1 / (counts[classes].double() * (counts > 0).sum())


def _shuffled_ranks(strata: Tensor, generator: torch.Generator) -> Tensor:
    """Rank of each sample in a random order of its stratum: int64 [N]."""
    shuffle = torch.randperm(len(strata), generator=generator)
    by_stratum = shuffle[strata[shuffle].argsort(stable=True)]
    counts = strata.bincount()
    first = counts.cumsum(0) - counts
    ranks = torch.empty_like(strata)
    ranks[by_stratum] = torch.arange(len(strata)) - first[strata[by_stratum]]
    return ranks
