r"""The output of one layer with Gaussian noise on its weights, by the local reparametrisation trick.

With weights w ~ N(mu, v_f) in filter f, a layer's output is Gaussian: its mean is the noise-free output y, and its
variance is v_f s, with the statistic s of `functional.layers.noise_statistic`. The noisy output is y + eps sqrt(v_f s).

Source: Kingma, Salimans and Welling, *Variational dropout and the local reparameterization trick*, NeurIPS 2015.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from t2v_lightning.functional.layers import Call, NoisyLayer


def noisy_output(
    rule: NoisyLayer, call: Call, y: Tensor, log_variance: Tensor, epsilon: Callable[[], Tensor]
) -> Tensor:
    """Adds noise to what a layer returned.

    Args:
        rule: of the layer.
        call: the layer's input, weight and options; the input is [N, C, ...] or, for linear layers, [..., C].
        y: its output; not changed.
        log_variance: [filters].
        epsilon: gives standard normal numbers of y's shape, which are overwritten. It is called in the forward
            and again in the backward pass and must give the same numbers, so that they need not be kept.

    Returns:
        Shape and dtype of y. The noise is computed in float32, or in float64 where the input is.

    >>> from t2v_lightning.functional.layers.linear import LinearRule
    >>> call = Call(torch.ones(1, 3), torch.ones(2, 3))
    >>> noisy_output(LinearRule(), call, torch.zeros(1, 2), torch.zeros(2), lambda: torch.ones(1, 2)) ** 2
    tensor([[3.0300, 3.0300]])
    """
    with torch.autocast(y.device.type, enabled=False):
        left, right = rule.noise_factors(call, (0.5 * log_variance).exp())
        shape = torch.broadcast_shapes(left.shape, right.shape)
        result: Tensor = _Noisy.apply(y.reshape(shape), left, right, lambda: epsilon().reshape(shape))
        return result.view(y.shape)


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
