r"""The output of one layer with Gaussian noise on its weights, by the local reparametrisation trick.

With weights w ~ N(mu, v_f) in filter f, a layer's output is Gaussian: its mean is the noise-free output y, and its
variance is v_f s, with the statistic s of `functional.layers.noise_statistic`. The noisy output is y + eps sqrt(v_f s).

For a loss L of the noisy output the derivative by log v_f has two forms that agree in expectation,

.. math:: \tfrac12 \sum_t \epsilon_t \sqrt{v_f s_t} \, L'_t
    \quad\text{and}\quad \tfrac12 v_f \sum_t s_t L''_t :

that of the reparametrisation, and Price's theorem. With the square of a gradient g whose E[g^2] is the Fisher
information of the output in place of L'', the second is far less noisy, as all of its terms are positive.

Sources: Kingma, Salimans and Welling, *Variational dropout and the local reparameterization trick*, NeurIPS 2015;
Price, *A useful theorem for nonlinear devices having Gaussian inputs*, IRE Trans. Information Theory 4, 1958.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from t2v_lightning.functional.layers import Call, NoisyLayer


def noisy_output(
    rule: NoisyLayer,
    call: Call,
    y: Tensor,
    log_variance: Tensor,
    epsilon: Callable[[], Tensor],
    squared: bool = False,
) -> Tensor:
    """Adds noise to what a layer returned.

    Args:
        rule: of the layer.
        call: the layer's input, weight and options; the input is [N, C, ...] or, for linear layers, [..., C].
        y: its output; not changed.
        log_variance: [filters].
        epsilon: gives standard normal numbers of y's shape, which are overwritten. It is called in the forward
            and again in the backward pass and must give the same numbers, so that they need not be kept.
        squared: let the backward pass give log_variance half of v_f times the sum of s g^2, with g the gradient of
            the noisy output, instead of the gradient; all else has its gradient.

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
        std_first = rule.std_first if squared else None
        result: Tensor = _Noisy.apply(
            y.reshape(shape), left, right, lambda: epsilon().reshape(shape), std_first
        )
        return result.view(y.shape)


class _Noisy(torch.autograd.Function):
    """y + epsilon * left * right, of shapes [..., L, T], [..., L, 1] and [..., 1, T].

    `std_first` tells which factor is the standard deviation that takes squares instead of its gradient; None for none.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        left: Tensor,
        right: Tensor,
        epsilon: Callable[[], Tensor],
        std_first: bool | None,
    ) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.epsilon, ctx.std_first = epsilon, std_first
        noise = epsilon().to(left.dtype).mul_(left)
        if y.dtype == noise.dtype:
            return torch.addcmul(y, noise, right)
        return (y + noise.mul_(right)).to(y.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        left, right = ctx.saved_tensors
        of_left, of_right = ctx.needs_input_grad[1:3]
        lefts = rights = None
        if ctx.std_first is not None:
            squares = grad.to(left.dtype).square()
            if ctx.std_first:
                lefts, of_left = left * _over_right(squares, right.square(), left), False
            else:
                rights, of_right = right * _over_left(squares, left.square(), right), False
        if of_left or of_right:
            product = ctx.epsilon().to(left.dtype).mul_(grad)
            lefts = _over_right(product, right, left) if of_left else lefts
            rights = _over_left(product, left, right) if of_right else rights
        return grad, lefts, rights, None, None


def _over_right(product: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """Sum of product * right over all that `left` does not tell apart."""
    return (product @ right.mT).sum_to_size(left.shape)


def _over_left(product: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Sum of product * left over all that `right` does not tell apart."""
    return (left.mT @ product).sum_to_size(right.shape)
