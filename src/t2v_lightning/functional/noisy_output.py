r"""The output of one layer with noise on its weights, by the local reparametrisation trick.

With weights w ~ N(mu, v_f) in filter f and input a, a layer's output is Gaussian. Its mean is the noise-free
output y, and as v_f is the same for all weights of a filter, its variance is

.. math:: v_f\, s, \qquad s = \mathrm{conv}\Bigl(\sum_c (a_c^2 + 0.01),\ 1\Bigr),

one channel (one a group) instead of all channels times all filters, and equal to conv(a^2 + 0.01, v) to rounding.
The noisy output is y + eps sqrt(v_f s). Zero padding by the layer comes after the addition of 0.01; padding that a
module does by itself comes before it.

Source: Kingma, Salimans and Welling, *Variational dropout and the local reparameterization trick*, NeurIPS 2015;
the 0.01 is that of the reference implementation of Task2Vec.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from t2v_lightning.functional.layers import Call

INPUT_FLOOR = 0.01
"""Added to every squared input, so that an input of zero does not hide a weight from the noise."""


def noisy_output(call: Call, y: Tensor, log_variance: Tensor, epsilon: Callable[[], Tensor]) -> Tensor:
    """Adds noise to what a convolution or a linear layer returned.

    Args:
        call: the layer's input, weight and options; convolutions are [N, C, ...], linear layers [..., C].
        y: its output; left as it is.
        log_variance: [filters].
        epsilon: gives standard normal numbers of y's shape, which may be overwritten. Called in the forward and
            in the backward pass and must give the same numbers, so that they need not be kept.

    Returns:
        Shape and dtype of y; the noise is computed in float32, or float64 where the input is.

    >>> call = Call(torch.ones(1, 3), torch.ones(2, 3))
    >>> noisy_output(call, torch.zeros(1, 2), torch.zeros(2), lambda: torch.ones(1, 2)) ** 2
    tensor([[3.0300, 3.0300]])
    """
    with torch.autocast(y.device.type, enabled=False):
        std = (0.5 * log_variance).exp()
        if call.weight.dim() == 2:
            noisy = _Noisy.apply(y, _root(_Squares.apply(call.input, -1)).unsqueeze(-1), std[None], epsilon)
        else:
            groups = int(call.options.get("groups", 1))
            spread = _root(_window_sums(call, groups)).flatten(2).unsqueeze(2)
            blocks = y.unflatten(1, (groups, -1)).flatten(3)  # [N, groups, filters of a group, positions]
            noisy = _Noisy.apply(
                blocks, std.view(groups, -1, 1), spread, lambda: epsilon().reshape(blocks.shape)
            )
            noisy = noisy.view_as(y)
    return noisy


def _window_sums(call: Call, groups: int) -> Tensor:
    """s: sum of a^2 + 0.01 over the inputs of each output position, [N, groups, ...]."""
    squares = _Squares.apply(call.input.unflatten(1, (groups, -1)), 2)
    if call.weight[0, 0].numel() == 1 and not _moves(call):
        return squares
    ones = squares.new_ones(groups, 1, *call.weight.shape[2:])
    convolution = (torch.conv1d, torch.conv2d, torch.conv3d)[call.weight.dim() - 3]
    geometry = {k: v for k, v in call.options.items() if k in ("stride", "padding", "dilation")}
    return convolution(squares, ones, None, **geometry, groups=groups)


def _moves(call) -> bool:
    o = call.options
    def flat(v): return list(v) if isinstance(v, (tuple, list)) else [v]
    return any(v != 1 for v in flat(o.get("stride", 1))) or any(v not in (0, "valid", "same") for v in flat(o.get("padding", 0)))


def _root(s: Tensor) -> Tensor:
    """Square root with a gradient of 0 at 0, where a window holds nothing but zero padding."""
    return s.clamp_min(torch.finfo(s.dtype).tiny).sqrt()


class _Squares(torch.autograd.Function):
    """Sum of a^2 + 0.01 over one dimension, in at least float32, in one sweep over `a` each way."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(a)
        ctx.dim = dim
        dtype = torch.promote_types(a.dtype, torch.float32)
        return a.to(dtype).square().sum(dim) + INPUT_FLOOR * a.shape[dim]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (a,) = ctx.saved_tensors
        return (a * (2 * grad).unsqueeze(ctx.dim)).to(a.dtype), None


class _Noisy(torch.autograd.Function):
    """y [..., L, T] + eps * left [..., L, 1] * right [..., 1, T]."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, left: Tensor, right: Tensor, epsilon: Callable[[], Tensor]) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.epsilon = epsilon
        noise = epsilon().to(left.dtype).mul_(left)
        if noise.dtype == y.dtype:
            return torch.addcmul(y, noise, right)
        return (y + noise.mul_(right)).to(y.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:  # type: ignore[override]
        left, right = ctx.saved_tensors
        product = ctx.epsilon().to(left.dtype).mul_(grad)
        lefts = (product @ right.mT).sum_to_size(left.shape) if ctx.needs_input_grad[1] else None
        rights = (left.mT @ product).sum_to_size(right.shape) if ctx.needs_input_grad[2] else None
        return grad, lefts, rights, None
