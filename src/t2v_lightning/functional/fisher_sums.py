r"""Sums over samples of filter-wise squared gradients: enough for their mean, its standard error and a jackknife.

With weights w_n, values v_n [D] and their mean F = sum w v / sum w,

.. math:: \mathrm{stderr}^2 = \sum_n w_n^2 (v_n - F)^2 / (\sum_n w_n)^2 .

All of it comes from plain float64 sums, which add up over batches and processes. The sums of w v are kept separately
for 16 groups of samples, chosen by a hash of the sample index: entries of different filters are strongly
correlated, so distances take their error from a jackknife over groups.

That is the error for one head. Other samples have another head, and where the values are known to be about
:math:`\rho_{ng} v_n` with the head that was fitted without group g, the error is multiplied by the factor by which that
makes the jackknife's error of the vector larger. A group's jackknife has few degrees of freedom, the factor between two
over the same groups much less noise than each of them.
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
non-zero weight) and `seen` in int64; with heads fitted without each group also `refit_sums` [16, D] in float64, sums of
w rho v over the samples outside a group."""


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
        stderr: float64 [D], standard error of each entry, with the head's part in it where that is known.
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


def group_of(index: Tensor) -> Tensor:
    """Group 0..15 of the samples with these positions in their dataset, int64 [N]."""
    return random_bits(0, 0, index, 1)[:, 0] & (GROUPS - 1)


def new_sums(size: int, refitted: bool = False) -> Sums:
    """Sums over no samples yet, for D = `size` filters; `refitted` for those with heads without each group too."""
    if size < 1:
        raise ValueError(f"size is the number of filters, 1 or more; got {size}")
    shapes: dict[str, tuple[int, ...]] = {
        "sum_w2v2": (size,),
        "sum_w2v": (size,),
        "sum_w2": (),
        "group_sums": (GROUPS, size),
        "group_weights": (GROUPS,),
        **({"refit_sums": (GROUPS, size)} if refitted else {}),
    }
    sums = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return sums | {name: torch.zeros((), dtype=torch.int64) for name in ("samples", "seen")}


def add_samples(
    sums: Sums,
    values: Tensor,
    weights: Tensor | None = None,
    index: Tensor | None = None,
    ratios: Tensor | None = None,
) -> Sums:
    """The sums with these samples added, on the device of the values.

    Args:
        sums: not changed.
        values: [N, D], squared per-sample gradients averaged within filters.
        weights: [N]; ones when None. A sample of weight 0 is ignored, whatever its values.
        index: int64 [N], the samples' positions in their dataset (for the groups); None numbers the samples
            in the order in which they come.
        ratios: float64 [N, 16], rho, for sums with heads without each group; ones when None.

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
    group = group_of(index.to(values.device))
    s = {name: tensor.to(values.device) for name, tensor in sums.items()}
    added = {}
    if "refit_sums" in s:
        outside = w[:, None] * (group[:, None] != torch.arange(GROUPS, device=group.device))
        outside = outside if ratios is None else outside * ratios.to(w)
        added["refit_sums"] = s["refit_sums"] + outside.T @ v
    return added | {
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
        variance.clamp_min(0).sqrt() * _growth(sums),
        sums["group_sums"].clone(),
        sums["group_weights"].clone(),
        sums["samples"].clone(),
    )


def _growth(sums: Sums) -> Tensor:
    """Factor by which heads without each group make the jackknife's error of the vector larger, a scalar."""
    w, total = sums["group_weights"], sums["group_weights"].sum()
    some = (w > 0) & (w < total)
    one = torch.ones((), dtype=w.dtype, device=w.device)
    if "refit_sums" not in sums or int(some.sum()) < 2:
        return one
    rest = (total - w)[some]
    whole = sums["group_sums"].sum(0)
    fixed, refitted = whole - sums["group_sums"][some], sums["refit_sums"][some]
    before, after = (
        _jackknife(whole / total, left / rest[:, None], total / w[some]) for left in (fixed, refitted)
    )
    return torch.where(before > 0, (after / before).sqrt(), one)


def _jackknife(full: Tensor, deleted: Tensor, ratios: Tensor) -> Tensor:
    """Sum over the entries of `functional.distances.jackknife_variance`, a scalar."""
    h = ratios[:, None]
    pseudo = h * full - (h - 1) * deleted
    centre = len(h) * full - ((1 - 1 / h) * deleted).sum(0)
    return ((pseudo - centre).square() / (h - 1)).mean(0).sum()
