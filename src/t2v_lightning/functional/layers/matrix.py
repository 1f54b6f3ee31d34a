"""Squared norms of the rows of g^T a, sample by sample: the arithmetic behind Linear and 1x1 convolutions."""

from torch import Tensor


def matrix_squares(a: Tensor, g: Tensor) -> Tensor:
    """Mean over inputs c of (sum_t g[n, t, f] a[n, t, c])^2.

    Args:
        a: inputs [N, T, C].
        g: output gradients [N, T, F].

    Returns:
        [N, F].
    """
    if a.shape[1] == 1:
        return g[:, 0].square() * a[:, 0].square().mean(1, keepdim=True)
    return (g.mT @ a).square().mean(2)
