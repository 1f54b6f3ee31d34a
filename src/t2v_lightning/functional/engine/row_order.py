"""Which rows of a layer's input belong to which sample."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowOrder:
    """The rows along `dim` belong to one sample after another, or (`interleaved`) to the samples in turn.

    Attributes:
        common: the call is one for all samples (position embeddings, say), so that its output must be repeated for
            each to have gradients of its own: along its "first" dimension, of size 1, or along a "new" one.

    >>> RowOrder(interleaved=True).samples_first(torch.tensor([1, 2, 10, 20]), samples=2)
    tensor([ 1, 10,  2, 20])
    """

    dim: int = 0
    interleaved: bool = False
    common: Literal["no", "first", "new"] = "no"

    def samples_first(self, x: Tensor, samples: int) -> Tensor:
        """[N * m, ...] with the m rows of a sample together."""
        if self.common != "no":
            return self.repeated(x, samples)
        x = x.movedim(self.dim, 0)
        if self.interleaved:
            x = x.unflatten(0, (-1, samples)).transpose(0, 1).flatten(0, 1)
        return x

    def repeated(self, x: Tensor, samples: int) -> Tensor:
        """[N, ...]: the input or output of a common call, once for each sample.

        >>> RowOrder(common="first").repeated(torch.zeros(1, 5, 4), samples=2).shape
        torch.Size([2, 5, 4])
        """
        return x.expand(samples, *x.shape[self.common == "first" :])

    def place(self, numbers: Tensor, shape: torch.Size) -> Tensor:
        """Each sample's numbers [N, size] put where its rows are in a tensor of that shape."""
        if self == RowOrder():
            return numbers.reshape(shape)
        rows = torch.Size([shape[self.dim], *shape[: self.dim], *shape[self.dim + 1 :]])
        if self.interleaved:
            numbers = numbers.unflatten(1, (rows[0] // len(numbers), -1)).transpose(0, 1)
        return numbers.reshape(rows).movedim(0, self.dim)

    def fits(self, x: Tensor) -> bool:
        """Whether the rows of x can be those of two samples in this order."""
        return x.dim() > self.dim and x.shape[self.dim] % 2 == 0


COMMON = (RowOrder(common="first"), RowOrder(common="new"))
_ORDERS = (RowOrder(0), RowOrder(0, interleaved=True), RowOrder(1), RowOrder(1, interleaved=True))


def find_row_order(equal: Tensor, changed: Tensor, swapped: Tensor) -> RowOrder | None:
    """The order in which only the rows of the changed sample differ; None if there is no such order.

    A threshold would not be enough: a network may shrink the difference between two images to the size of rounding
    errors. Nor would a single change be: where half the rows of [T, N, ...] are learned tokens, the other half
    look like sample 1.

    Args:
        equal: a layer's input for two equal samples.
        changed: the same with a different sample 1.
        swapped: the same with a different sample 0.
    """
    if not equal.shape == changed.shape == swapped.shape:
        return None
    rounding = 64 * torch.finfo(equal.dtype).eps * _largest(equal) if equal.is_floating_point() else 0.0

    def only(sample: int, difference: Tensor, order: RowOrder) -> bool:
        halves = [_largest(half) for half in order.samples_first(difference, 2).chunk(2)]
        kept, moved = halves[1 - sample], halves[sample]
        return kept <= rounding and moved > 16 * kept

    for order in _ORDERS:
        if order.fits(equal) and only(1, changed - equal, order) and only(0, swapped - equal, order):
            return order
    return None


def _largest(x: Tensor) -> float:
    return float(x.abs().amax()) if x.numel() else 0.0
