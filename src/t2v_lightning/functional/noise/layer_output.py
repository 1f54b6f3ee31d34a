r"""The output of one layer with Gaussian noise on its weights, by the local reparametrisation trick.

With weights w ~ N(mu, v_f) in filter f and input a, a layer's output is Gaussian. Its mean is the noise-free
output y, and as v_f is the same for all weights of a filter, its variance is

.. math:: v_f\, s, \qquad s = \mathrm{conv}\Bigl(\sum_c (a_c^2 + 0.01),\ 1\Bigr),

one channel (one a group) instead of all channels times all filters, and equal to conv(a^2 + 0.01, v) to rounding.
The noisy output is y + eps sqrt(v_f s). Zero padding by the layer comes after the addition of 0.01; a module that
pads by itself (another padding mode, say) hands over a padded input, which is then squared.

Source: Kingma, Salimans and Welling, *Variational dropout and the local reparameterization trick*, NeurIPS 2015;
the 0.01 is that of the reference implementation of Task2Vec.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from t2v_lightning.functional.layers import Call

INPUT_FLOOR = 0.01
"""Added to every squared input, so that an input of zero does not hide its weights from the noise."""

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {3: torch.conv1d, 4: torch.conv2d, 5: torch.conv3d}


def noisy_output(call: Call, y: Tensor, log_variance: Tensor, epsilon: Callable[[], Tensor]) -> Tensor:
    """Adds noise to what a convolution or a linear layer returned.

    Args:
        call: the layer's input, weight and options; the input is [N, C, ...] or, of linear layers, [..., C].
        y: its output; left as it is.
        log_variance: [filters].
        epsilon: gives standard normal numbers of y's shape, which are overwritten. It is called in the forward
            and again in the backward pass and must give the same numbers, so that none need be kept.

    Returns:
        Shape and dtype of y. The noise is computed in float32, or in float64 where the input is.

    >>> call = Call(torch.ones(1, 3), torch.ones(2, 3))
    >>> noisy_output(call, torch.zeros(1, 2), torch.zeros(2), lambda: torch.ones(1, 2)) ** 2
    tensor([[3.0300, 3.0300]])
    """
    with torch.autocast(y.device.type, enabled=False):
        std = (0.5 * log_variance).exp()
        a, dims = call.input, call.weight.dim()
        if dims == 2:
            s = _Squares.apply(a, -1).unsqueeze(-1)
            result: Tensor = _Noisy.apply(y, s.sqrt(), std[None], epsilon)
            return result
        groups = int(call.options.get("groups", 1))
        squares = _Squares.apply(a.unflatten(1, (groups, -1)), 2)
        ones = squares.new_ones(groups, 1, *call.weight.shape[2:])
        geometry = {k: v for k, v in call.options.items() if k in ("stride", "padding", "dilation")}
        s = _CONVOLUTIONS[dims](squares, ones, None, **geometry, groups=groups)
        # a window of nothing but padding has s = 0, where the square root has no gradient
        right = s.clamp_min(torch.finfo(s.dtype).tiny).sqrt().flatten(2).unsqueeze(2)
        blocks = y.unflatten(1, (groups, -1)).flatten(3)  # [N, groups, filters of a group, positions]
        result = _Noisy.apply(blocks, std.view(groups, -1, 1), right, lambda: epsilon().reshape(blocks.shape))
        return result.view(y.shape)


class _Squares(torch.autograd.Function):
    """Sum of a^2 + 0.01 over one dimension, in at least float32; one sweep over `a` each way."""

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


class _Noisy(torch.autograd.Function):
    """y + epsilon * left * right, of shapes [..., L, T], [..., L, 1] and [..., 1, T]."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, left: Tensor, right: Tensor, epsilon: Callable[[], Tensor]) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.epsilon = epsilon
        noise = epsilon().to(left.dtype).mul_(left)
        if y.dtype == noise.dtype:
            return torch.addcmul(y, noise, right)
        return (y + noise.mul_(right)).to(y.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        left, right = ctx.saved_tensors
        product = ctx.epsilon().to(left.dtype).mul_(grad)
        lefts = (product @ right.mT).sum_to_size(left.shape) if ctx.needs_input_grad[1] else None
        rights = (left.mT @ product).sum_to_size(right.shape) if ctx.needs_input_grad[2] else None
        return grad, lefts, rights, None
