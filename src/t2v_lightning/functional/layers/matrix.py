"""Squared norms of the rows of g^T a, sample by sample: the arithmetic behind Linear and 1x1 convolutions."""

import torch
from torch import Tensor

from t2v_lightning.functional.layers.choice import blocks, gram_is_cheaper


def matrix_squares(a: Tensor, g: Tensor) -> Tensor:
    """Mean over inputs c of (sum_t g[n, t, f] a[n, t, c])^2.

    Args:
        a: inputs [N, T, C].
        g: output gradients [N, T, F].

    Returns:
        [N, F].
    """
    samples, positions, inputs = a.shape
    if positions == 1:
        return g[:, 0].square() * a[:, 0].square().mean(1, keepdim=True)
    if gram_is_cheaper(positions**2 * (inputs + g.shape[2]), positions * inputs * g.shape[2]):
        size = positions**2
        parts = [gram_times(a[b] @ a[b].mT, g[b]) for b in blocks(samples, size, a.device)]
    else:
        size = inputs * g.shape[2]
        parts = [(g[b].mT @ a[b]).square().sum(2) for b in blocks(samples, size, a.device)]
    return torch.cat(parts) / inputs


def gram_times(gram: Tensor, g: Tensor) -> Tensor:
    """Diagonal of g^T G g, which is ||g^T a||^2 row by row for G = a a^T: [n, T, T] and [n, T, F] -> [n, F].

    It is a sum of squares, so what rounding leaves below zero is zero.
    """
    return torch.einsum("ntf,ntf->nf", gram @ g, g).clamp_min(0)
