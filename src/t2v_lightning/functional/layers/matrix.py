"""Squared norms of the rows of g^T a, sample by sample: the arithmetic behind Linear and 1x1 convolutions."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from t2v_lightning.functional.layers.cost_model import GRAM_ROWS, blocks, gram_is_cheaper

GramRows = Callable[[int, int], Tensor]


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
        parts = [_centred_squares(a[b], g[b]) for b in blocks(samples, size, a.device)]
    elif inputs < g.shape[2]:  # a product with few rows takes a fraction of the time of one with few columns
        parts = [(a[b].mT @ g[b]).square().sum(1) for b in blocks(samples, inputs * g.shape[2], a.device)]
    else:
        parts = [(g[b].mT @ a[b]).square().sum(2) for b in blocks(samples, inputs * g.shape[2], a.device)]
    return torch.cat(parts) / inputs


def _centred_squares(a: Tensor, g: Tensor) -> Tensor:
    """||g^T a||^2 row by row [n, F], from the Gram matrix of a - u m^T, with m the mean over the non-zero positions u.

    Before a normalisation the rows of g sum to nearly zero, so g^T (u m^T) nearly vanishes; but in g^T a a^T g its
    large terms would cancel, and the digits of the rest would be lost. Zeros stay zeros, as gradients of padded
    positions can have any size.
    """
    used: Tensor = (torch.linalg.vector_norm(a, dim=2, keepdim=True) > 0).to(a.dtype)
    mean = a.sum(1, keepdim=True) / used.sum(1, keepdim=True).clamp_min(1)
    rest = torch.addcmul(a, used, mean, value=-1)
    sums = (used.mT @ g).squeeze(1)
    crossed = ((rest @ mean.mT).mT @ g).squeeze(1)
    offset = sums * (2 * crossed + mean.square().sum(2) * sums)
    return (gram_diagonal(product_rows(rest), g) + offset).clamp_min(0)


def gram_diagonal(rows: GramRows, g: Tensor) -> Tensor:
    """Diagonal of g^T G g for a symmetric G = a a^T, which is ||g^T a||^2 row by row.

    Blocks of G below the diagonal are left out, and those above it count twice.

    Args:
        rows: gives G[:, start:stop, start:], [n, stop - start, T - start], which may be overwritten.
        g: output gradients [n, T, F].

    Returns:
        [n, F]. It is a sum of squares, so what rounding makes negative is set to zero.
    """
    positions = g.shape[1]
    edges = [*range(0, max(1, positions - GRAM_ROWS // 2), GRAM_ROWS), positions]
    total = g.new_zeros(len(g), g.shape[2])
    for start, stop in pairwise(edges):
        block = rows(start, stop)
        block[:, :, : stop - start] *= 0.5
        total += (block @ g[:, start:]).mul_(g[:, start:stop]).sum(1)
    return (2 * total).clamp_min(0)


def product_rows(a: Tensor) -> GramRows:
    """Block rows of a a^T for a [n, T, C]."""
    return lambda start, stop: a[:, start:stop] @ a[:, start:].mT


def matrix_rows(gram: Tensor) -> GramRows:
    """Block rows of a matrix [n, T, T]."""
    return lambda start, stop: gram[:, start:stop, start:]
