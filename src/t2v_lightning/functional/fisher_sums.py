r"""Sums over samples of filter-wise squared gradients: enough for their mean, its standard error and a jackknife.

With weights w_n, values v_n [D] and their mean F = sum w v / sum w,

.. math:: \mathrm{stderr}^2 = \sum_n w_n^2 (v_n - F)^2 / (\sum_n w_n)^2 .

All of it comes from plain float64 sums, which add up over batches and processes. The sums of w v are kept separately
for 16 groups of samples, chosen by a hash of the sample index: entries of different filters are strongly
correlated, so distances take their error from a jackknife over groups.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from t2v_lightning.functional.random import random_bits

GROUPS = 16
"""Number of groups of samples with separate sums."""

Sums = dict[str, Tensor]
"""`sum_w2v2` and `sum_w2v` [D], `sum_w2`, `group_sums` [16, D], `group_weights` [16] in float64; `samples` (of
non-zero weight) and `seen` in int64."""


class _Estimate(NamedTuple):
    fisher: Tensor
    stderr: Tensor
    group_sums: Tensor
    group_weights: Tensor
    samples: Tensor


class FisherEstimate(_Estimate):
    """Weighted mean of the per-sample values, and its error.

    Attributes:
        fisher: float64 [D].
        stderr: float64 [D], standard error of each entry.
        group_sums: float64 [16, D], sum of w v over the samples of each group.
        group_weights: float64 [16], sum of w over the samples of each group.
        samples: int64 scalar, samples of non-zero weight.
    """

    def __new__(cls, fisher: Tensor, stderr: Tensor, *sums: Tensor) -> "FisherEstimate":
        """torchmetrics takes results apart and hands back scalars for a network of one filter: they are [1]."""
        return super().__new__(cls, torch.atleast_1d(fisher), torch.atleast_1d(stderr), *sums)

    @property
    def relative_stderr(self) -> float:
        """||stderr|| / ||fisher||, which `target_stderr` bounds."""
        return float(self.stderr.norm() / self.fisher.norm().clamp_min(torch.finfo(torch.float64).tiny))


def new_sums(size: int) -> Sums:
    """Sums over no samples yet, for D = `size` filters."""
    if size < 1:
        raise ValueError(f"size is the number of filters, 1 or more; got {size}")
    shapes: dict[str, tuple[int, ...]] = {
        "sum_w2v2": (size,),
        "sum_w2v": (size,),
        "sum_w2": (),
        "group_sums": (GROUPS, size),
        "group_weights": (GROUPS,),
    }
    sums = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return sums | {name: torch.zeros((), dtype=torch.int64) for name in ("samples", "seen")}


def add_samples(
    sums: Sums, values: Tensor, weights: Tensor | None = None, index: Tensor | None = None
) -> Sums:
    """The sums with these samples added, on the device of the values.

    Args:
        sums: not changed.
        values: [N, D], squared per-sample gradients averaged within filters.
        weights: [N]; ones when None. A sample of weight 0 is ignored, whatever its values.
        index: int64 [N], the samples' positions in their dataset (for the groups); None numbers the samples
            in the order in which they come.

    Raises:
        ValueError: a shape is wrong, values are not finite, or weights are negative or not finite.

    >>> sums = add_samples(new_sums(2), torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    >>> estimate(sums).fisher
    tensor([2., 2.], dtype=torch.float64)
    """
    size = len(sums["sum_w2v"])
    if values.dim() != 2 or values.shape[1] != size:
        raise ValueError(f"values must have shape [N, {size}]; got {tuple(values.shape)}")
    w = torch.ones(len(values)) if weights is None else weights
    w = w.to(values.device, torch.float64)
    index = numbered(sums["seen"], values) if index is None else index
    if w.shape != (len(values),) or index.shape != w.shape:
        raise ValueError(
            f"weights and index must have shape ({len(values)},); got {tuple(w.shape)} and {tuple(index.shape)}"
        )
    if not bool(((w >= 0) & torch.isfinite(w)).all()):
        raise ValueError(f"weights must be finite numbers of 0 or more; got {w.min():g} to {w.max():g}")
    v = torch.where(w[:, None] > 0, values.double(), 0.0)
    if not bool(torch.isfinite(v).all()):
        bad = index[~torch.isfinite(v).all(1)].tolist()
        raise ValueError(
            f"squared gradients of sample(s) {bad[:5]} are not finite; check the images and weights"
        )
    group = random_bits(0, 0, index.to(values.device), 1)[:, 0] & (GROUPS - 1)
    s = {name: tensor.to(values.device) for name, tensor in sums.items()}
    return {
        "sum_w2v2": s["sum_w2v2"] + w.square() @ v.square(),
        "sum_w2v": s["sum_w2v"] + w.square() @ v,
        "sum_w2": s["sum_w2"] + w.square().sum(),
        "group_sums": s["group_sums"].index_add(0, group, w[:, None] * v),
        "group_weights": s["group_weights"].index_add(0, group, w),
        "samples": s["samples"] + (w > 0).sum(),
        "seen": s["seen"] + len(w),
    }


def numbered(seen: Tensor, values: Tensor) -> Tensor:
    """Numbers of samples [N] that follow those seen so far."""
    return int(seen) + torch.arange(len(values), device=values.device)


def add_over_processes(sums: Sums, all_reduce: Callable[[Tensor], object], device: torch.device) -> Sums:
    """The sums of all processes.

    Args:
        sums: of this process.
        all_reduce: adds a float64 tensor up over processes, in place.
        device: that it adds on.
    """
    flat = torch.cat([tensor.flatten().to(device, torch.float64) for tensor in sums.values()])
    all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in sums.values()])
    return {
        name: part.view_as(tensor).to(tensor.dtype)
        for (name, tensor), part in zip(sums.items(), parts, strict=True)
    }


def estimate(sums: Sums) -> FisherEstimate:
    """Mean and errors; ValueError if no sample of positive weight was added."""
    weight = sums["group_weights"].sum()
    if not weight > 0:
        raise ValueError(
            "no sample of positive weight was added, so there is no Fisher information to compute"
        )
    fisher = sums["group_sums"].sum(0) / weight
    variance = (
        sums["sum_w2v2"] - 2 * fisher * sums["sum_w2v"] + fisher.square() * sums["sum_w2"]
    ) / weight.square()
    return FisherEstimate(
        fisher,
        variance.clamp_min(0).sqrt(),
        sums["group_sums"].clone(),
        sums["group_weights"].clone(),
        sums["samples"].clone(),
    )
