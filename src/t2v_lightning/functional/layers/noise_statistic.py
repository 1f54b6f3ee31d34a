r"""The statistic s of a layer's input that noise on its weights is multiplied by on its way to the output.

Weights of variance v_f, the same for all weights of filter f, give an output of variance conv(a^2 + 0.01, v) for
input a (Linear: a sum instead of a convolution). As v_f is constant within a filter that equals, to rounding,

.. math:: v_f\, s, \qquad s = \mathrm{conv}\Bigl(\sum_c (a_c^2 + 0.01),\ 1\Bigr),

one channel (per group) instead of all channels times all filters. Zero padding by the layer comes after the addition
of 0.01; a module that pads by itself (in another padding mode, say) passes a padded input, which is then squared.

Source: Kingma, Salimans and Welling, *Variational dropout and the local reparameterization trick*, NeurIPS 2015;
the 0.01 is that of the reference implementation of Task2Vec.
"""

from typing import Any

import torch
from torch import Tensor

INPUT_FLOOR = 0.01
"""Added to every squared input, so that an input of zero does not hide its weights from the noise."""


def floored_square_sum(a: Tensor, dim: int) -> Tensor:
    """Sum of a^2 + 0.01 over one dimension, in at least float32.

    >>> floored_square_sum(torch.ones(2, 3), 1)
    tensor([3.0300, 3.0300])
    """
    result: Tensor = _FlooredSquareSum.apply(a, dim)
    return result


class _FlooredSquareSum(torch.autograd.Function):
    """One sweep over `a` each way."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(a)
        ctx.dim = dim
        squares = a.to(torch.promote_types(a.dtype, torch.float32)).square()
        return squares.sum(dim) + INPUT_FLOOR * a.shape[dim]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (a,) = ctx.saved_tensors
        return (a * (2 * grad).unsqueeze(ctx.dim)).to(a.dtype), None
