"""The filter-wise Fisher information as a torchmetrics metric, which adds up over processes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from t2v_lightning.functional.engine.usage import Include, check_include
from t2v_lightning.functional.filterwise import filterwise_squares
from t2v_lightning.functional.fisher_sums import (
    FisherEstimate,
    Sums,
    add_samples,
    estimate,
    new_sums,
    numbered,
)
from t2v_lightning.functional.inputs import Inputs, length
from t2v_lightning.functional.layers.sketch import Squares, check_squares
from t2v_lightning.functional.likelihood import LikelihoodName, Sampling, check_sampling, get_likelihood


class FilterwiseFisher(Metric):
    """Weighted mean over samples of filter-wise squared gradients, with its standard error.

    States are the float64 sums of `functional.fisher_sums`, which reduce by "sum".

    Args:
        size: a network, whose squared gradients `update(inputs)` computes by `functional.filterwise_fisher`; or the
            number of filters D, to add up squared gradients [N, D] that are computed elsewhere.
        sampling, likelihood, passes, include, squares: of `filterwise_fisher`, for a network. It is measured as it is
            at each `update`, is left untouched, and is not a part of the metric.
        seed: of the random modes; the numbers of a sample depend on it and on the sample's index alone.

    Attributes:
        layers: layer name -> slice of the D filters, of a network that has been measured.

    Raises:
        TypeError: size is neither a network nor an integer.
        ValueError: size is below 1, or an option is none of those that there are.

    >>> import torch
    >>> metric = FilterwiseFisher(size=2)
    >>> metric.update(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), index=torch.tensor([0, 1]))
    >>> metric.compute().fisher
    tensor([2., 2.], dtype=torch.float64)

    >>> metric = FilterwiseFisher(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))
    >>> for inputs in torch.randn(10, 4).split(5):
    ...     metric.update(inputs)
    >>> metric.compute().fisher.shape, metric.layers
    (torch.Size([3]), {'0': slice(0, 3, None)})
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    samples: Tensor
    seen: Tensor

    def __init__(
        self,
        size: int | nn.Module,
        *,
        sampling: Sampling = "exact",
        likelihood: LikelihoodName = "softmax",
        passes: int = 1,
        include: Include = "weights",
        squares: Squares = "exact",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if isinstance(size, bool) or not isinstance(size, (int, nn.Module)):
            raise TypeError(
                f"size is a network, or the number of filters D; got {type(size).__name__}. With a network the metric "
                "computes squared gradients itself, with a number it adds up those that update(values) is given"
            )
        super().__init__(**kwargs)
        self.names: tuple[str, ...] = ()
        self.layers: dict[str, slice] = {}
        # in a tuple it is not part of the metric
        self._network: tuple[nn.Module, ...] = (size,) if isinstance(size, nn.Module) else ()
        if isinstance(size, int):
            self._begin(size)
            return
        get_likelihood(likelihood)
        check_sampling(sampling, passes)
        check_include(include)
        check_squares(squares)
        self._options: dict[str, Any] = {
            "sampling": sampling,
            "likelihood": likelihood,
            "passes": passes,
            "include": include,
            "squares": squares,
            "seed": seed,
        }

    def update(
        self,
        values: Inputs,
        weights: Tensor | None = None,
        index: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> None:
        """Adds samples.

        Args:
            values: [N, D], squared per-sample gradients averaged within filters; for a network its inputs [N, ...].
            weights: [N]; ones when None. A sample of weight 0 is ignored.
            index: int64 [N], the samples' positions in their dataset (for the groups); None numbers the samples
                in the order in which they come.
            targets: of `filterwise_fisher`, for a network with sampling="empirical".

        Raises:
            ValueError: a shape is wrong, values are not finite, or weights are negative or not finite.
        """
        if self._network:
            values, index = self._squares(values, index, targets)
        assert isinstance(values, Tensor)
        # new tensors: after a reset in a Trainer's validation the states are tensors of inference mode
        for name, total in add_samples(self._sums(), values, weights, index).items():
            setattr(self, name, total)

    def forward(
        self,
        values: Inputs,
        weights: Tensor | None = None,
        index: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> FisherEstimate:
        """`update`, and the estimate over only these samples."""
        # numbered here, as the base class resets the count of samples for a while
        if self._network:
            values, index = self._squares(values, index, targets)
        assert isinstance(values, Tensor)
        index = numbered(self.seen, values) if index is None else index
        network, self._network = self._network, ()  # as the values are there
        try:
            found: FisherEstimate = super().forward(values, weights, index)
        finally:
            self._network = network
        return found

    def compute(self) -> FisherEstimate:
        """The estimate over all samples so far, of all processes; ValueError if there are none."""
        return self.estimate()

    def estimate(self) -> FisherEstimate:
        """The estimate over only this process's samples."""
        if not self.names:
            raise ValueError(
                "no sample of positive weight was added, so there is no Fisher information to compute"
            )
        return estimate(self._sums())

    def _begin(self, size: int) -> None:
        self.size, zeros = size, new_sums(size)
        self.names = tuple(zeros)
        for name, zero in zeros.items():
            self.add_state(name, zero, dist_reduce_fx="sum")

    def _squares(self, x: Inputs, index: Tensor | None, targets: Tensor | None) -> tuple[Tensor, Tensor]:
        """Squared gradients [N, D] of the network, and the positions [N] of the samples."""
        if index is None:
            index = int(self.seen if self.names else 0) + torch.arange(length(x))
        values, self.layers = filterwise_squares(
            self._network[0], x, targets=targets, index=index, **self._options
        )
        if not self.names:
            self._begin(values.shape[1])
        return values, index.to(values.device)

    def _sums(self) -> Sums:
        return {name: getattr(self, name) for name in self.names}

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()) -> nn.Module:
        """Moves the sums to another device; they stay in float64, whatever dtype the parent module changes to."""
        return super()._apply(lambda state: state.to(fn(state).device), exclude_state)
