"""The filter-wise Fisher information as a torchmetrics metric, which adds up over processes."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from t2v_lightning.functional.fisher_sums import (
    FisherEstimate,
    Sums,
    add_samples,
    estimate,
    new_sums,
    numbered,
)


class FilterwiseFisher(Metric):
    """Weighted mean over samples of filter-wise squared gradients, with its standard error.

    States are the float64 sums of `functional.fisher_sums`, which reduce by "sum".

    Args:
        size: number of filters D.

    Raises:
        TypeError: size is not an integer.
        ValueError: size is below 1.

    >>> import torch
    >>> metric = FilterwiseFisher(size=2)
    >>> metric.update(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), index=torch.tensor([0, 1]))
    >>> metric.compute().fisher
    tensor([2., 2.], dtype=torch.float64)
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    samples: Tensor
    seen: Tensor

    def __init__(self, size: int, **kwargs: Any) -> None:
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(
                f"size is the number of filters D, an integer; got {type(size).__name__}. The metric adds up squared "
                "gradients [N, D]; functional.filterwise_fisher(model, x) computes them and the Fisher information"
            )
        super().__init__(**kwargs)
        self.size, zeros = size, new_sums(size)
        self.names = tuple(zeros)
        for name, zero in zeros.items():
            self.add_state(name, zero, dist_reduce_fx="sum")

    def update(self, values: Tensor, weights: Tensor | None = None, index: Tensor | None = None) -> None:
        """Adds samples.

        Args:
            values: [N, D], squared per-sample gradients averaged within filters.
            weights: [N]; ones when None. A sample of weight 0 is ignored.
            index: int64 [N], the samples' positions in their dataset (for the groups); None numbers the samples
                in the order in which they come.

        Raises:
            ValueError: a shape is wrong, values are not finite, or weights are negative or not finite.
        """
        # new tensors: after a reset in a Trainer's validation the states are tensors of inference mode
        for name, total in add_samples(self._sums(), values, weights, index).items():
            setattr(self, name, total)

    def forward(
        self, values: Tensor, weights: Tensor | None = None, index: Tensor | None = None
    ) -> FisherEstimate:
        """`update`, and the estimate over only these samples."""
        # numbered here, as the base class resets the count of samples for a while
        index = numbered(self.seen, values) if index is None else index
        found: FisherEstimate = super().forward(values, weights, index)
        return found

    def compute(self) -> FisherEstimate:
        """The estimate over all samples so far, of all processes; ValueError if there are none."""
        return self.estimate()

    def estimate(self) -> FisherEstimate:
        """The estimate over only this process's samples."""
        return estimate(self._sums())

    def _sums(self) -> Sums:
        return {name: getattr(self, name) for name in self.names}

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()) -> nn.Module:
        """Moves the sums to another device; they stay in float64, whatever dtype the parent module changes to."""
        return super()._apply(lambda state: state.to(fn(state).device), exclude_state)
