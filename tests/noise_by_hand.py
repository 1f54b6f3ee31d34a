"""Noise that a test can compute for itself, and networks that bear it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def ones(call: int, draws: Tensor, size: int) -> Tensor:
    return torch.ones(len(draws), size)


def fixed(call: int, draws: Tensor, size: int) -> Tensor:
    """Numbers of a draw and a call, by torch's own generator."""
    seeds = [1000 * call + int(draw) for draw in draws]
    return torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(s)) for s in seeds])


def frozen(model: nn.Module) -> nn.Module:
    return model.double().eval().requires_grad_(False)


def written_out(
    func: Callable[..., Tensor], a: Tensor, w: Tensor, log_variance: Tensor, **options: Any
) -> Tensor:
    """Variance of the output: the layer itself on squares and variances, weight by weight."""
    variances = log_variance.exp().view(-1, *[1] * (w.dim() - 1)).expand(w.shape)
    return func(a**2 + 0.01, variances, **options)
