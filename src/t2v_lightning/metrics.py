"""Running sums of per-sample Fisher values, as a torchmetrics metric that adds up over processes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from t2v_lightning.functional.random import random_bits

GROUPS = 16
"""Number of groups of samples whose sums are kept apart, for a jackknife over groups."""


class FisherEstimate(NamedTuple):
    """Weighted mean of the per-sample values and what is known of its error.

    Attributes:
        fisher: float64 [D].
        stderr: float64 [D], standard error of each entry.
        group_sums: float64 [16, D], sum of w v over the samples of each group.
        group_weights: float64 [16], sum of w over the samples of each group.
        samples: int64 scalar, samples of non-zero weight.
    """

    fisher: Tensor
    stderr: Tensor
    group_sums: Tensor
    group_weights: Tensor
    samples: Tensor

    @property
    def relative_stderr(self) -> float:
        """||stderr|| / ||fisher||, what `target_stderr` is compared with."""
        return float(self.stderr.norm() / self.fisher.norm().clamp_min(torch.finfo(torch.float64).tiny))


class FilterwiseFisher(Metric):
    r"""Weighted mean over samples of filter-wise squared gradients, with its standard error.

    States are plain sums in float64 that reduce by ``"sum"``. With weights w_n, values v_n, their mean
    F = sum w v / sum w:

    .. math:: \mathrm{stderr}^2 = \sum_n w_n^2 (v_n - F)^2 / (\sum_n w_n)^2

    Besides, the sums are kept in 16 groups by a hash of the sample index: entries of different filters are
    strongly correlated, so distances take their error from a jackknife over groups.

    Args:
        size: number of filters D.

    >>> metric = FilterwiseFisher(size=2)
    >>> metric.update(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), index=torch.tensor([0, 1]))
    >>> metric.compute().fisher
    tensor([2., 2.], dtype=torch.float64)
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    sum_w2v2: Tensor
    sum_w2v: Tensor
    sum_w2: Tensor
    group_sums: Tensor
    group_weights: Tensor
    samples: Tensor
    seen: Tensor

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if size < 1:
            raise ValueError(f"size is the number of filters and at least 1, got {size}")
        self.size = size
        for name, shape in {
            "sum_w2v2": (size,),
            "sum_w2v": (size,),
            "sum_w2": (),
            "group_sums": (GROUPS, size),
            "group_weights": (GROUPS,),
        }.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("samples", "seen"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor, weights: Tensor | None = None, index: Tensor | None = None) -> None:
        """Adds samples.

        Args:
            values: [N, D], squared per-sample gradients averaged within filters.
            weights: [N]; ones when None. A sample of weight 0 counts for nothing.
            index: int64 [N], the samples' positions in their dataset (for the groups). When None the samples
                are numbered in the order in which they come.

        Raises:
            ValueError: shapes do not fit, values are not finite, or weights are negative or not finite.
        """
        if values.dim() != 2 or values.shape[1] != self.size:
            raise ValueError(f"values must have shape [N, {self.size}], got {tuple(values.shape)}")
        w = torch.ones(len(values)) if weights is None else weights
        w = w.to(values.device, torch.float64)
        index = self._numbered(values, index)
        if w.shape != (len(values),) or index.shape != w.shape:
            raise ValueError(
                f"weights and index must have shape ({len(values)},), got {tuple(w.shape)} and {tuple(index.shape)}"
            )
        if not bool(((w >= 0) & torch.isfinite(w)).all()):
            raise ValueError(f"weights must be finite numbers of 0 or more, got {w.min():g} to {w.max():g}")
        v = torch.where(w[:, None] > 0, values.double(), 0.0)
        if not bool(torch.isfinite(v).all()):
            bad = index[~torch.isfinite(v).all(1)].tolist()
            raise ValueError(
                f"squared gradients of sample(s) {bad[:5]} are not finite; check the images and weights"
            )
        group = random_bits(0, 0, index.to(values.device), 1)[:, 0] & (GROUPS - 1)
        # not in place: a metric that a Trainer's validation has reset holds tensors of inference mode
        self.group_sums = self.group_sums.index_add(0, group, w[:, None] * v)
        self.group_weights = self.group_weights.index_add(0, group, w)
        self.sum_w2v2 = self.sum_w2v2 + w.square() @ v.square()
        self.sum_w2v = self.sum_w2v + w.square() @ v
        self.sum_w2 = self.sum_w2 + w.square().sum()
        self.samples = self.samples + (w > 0).sum()
        self.seen = self.seen + len(w)

    def forward(
        self, values: Tensor, weights: Tensor | None = None, index: Tensor | None = None
    ) -> FisherEstimate:
        """`update`, and the estimate over these samples alone."""
        # numbered before the base class sets the sums aside
        estimate: FisherEstimate = super().forward(values, weights, self._numbered(values, index))
        return estimate

    def _numbered(self, values: Tensor, index: Tensor | None) -> Tensor:
        if index is not None:
            return index
        return int(self.seen) + torch.arange(len(values), device=values.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()) -> nn.Module:
        """Moves the sums to another device; a dtype that the module around asks for is not theirs."""
        return super()._apply(lambda state: state.to(fn(state).device), exclude_state)

    def compute(self) -> FisherEstimate:
        """The estimate over everything seen so far, on all processes; ValueError if that is nothing."""
        return self.estimate()

    def sums(self) -> dict[str, Tensor]:
        """This process's sums by name, on the CPU: all that is needed to go on elsewhere."""
        return {name: getattr(self, name).detach().cpu().clone() for name in self._defaults}

    def load_sums(self, sums: dict[str, Tensor]) -> None:
        """Goes on from the sums of a metric of the same size.

        >>> metric, other = FilterwiseFisher(size=2), FilterwiseFisher(size=2)
        >>> metric.update(torch.tensor([[3.0, 1.0]]))
        >>> other.load_sums(metric.sums())
        >>> other.compute().fisher
        tensor([3., 1.], dtype=torch.float64)
        """
        for name in self._defaults:
            setattr(self, name, sums[name].to(getattr(self, name)))
        self._update_count, self._computed = max(self._update_count, int(self.seen > 0)), None

    def estimate(self) -> FisherEstimate:
        """The estimate from this process's samples alone."""
        weight = self.group_weights.sum()
        if not weight > 0:
            raise ValueError(
                "no sample of positive weight was added, so there is no Fisher information to compute"
            )
        fisher = self.group_sums.sum(0) / weight
        variance = (
            self.sum_w2v2 - 2 * fisher * self.sum_w2v + fisher.square() * self.sum_w2
        ) / weight.square()
        return FisherEstimate(
            fisher,
            variance.clamp_min(0).sqrt(),
            self.group_sums.clone(),
            self.group_weights.clone(),
            self.samples.clone(),
        )
