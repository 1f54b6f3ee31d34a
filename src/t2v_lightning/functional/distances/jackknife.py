"""The delete-one-group jackknife: the error of a function of an embedding, from sums over groups of images.

With S_g the sum of weight times value and w_g the sum of the weights over group g, S and W their totals,
the embedding is S / W and the embedding without group g is (S - S_g) / (W - w_g). Entries of different
filters are strongly correlated; deleting whole images keeps that, where an error per entry would lose it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def leave_one_out(sums: ArrayLike, weights: ArrayLike) -> tuple[Array, Array]:
    """The means without each of the G groups in turn; empty groups are skipped.

    Args:
        sums: [G, D], sums of weight times value of each group.
        weights: [G], sums of the weights.

    Returns:
        float64 [G', D] means and float64 [G'] ratios W / w_g, for the G' groups that have weight.

    Raises:
        ValueError: fewer than two groups have weight.

    >>> means, ratios = leave_one_out([[2.0], [6.0]], [1.0, 1.0])
    >>> means.tolist(), ratios.tolist()
    ([[6.0], [2.0]], [2.0, 2.0])
    """
    sums, weights = _with_weight(sums, weights)
    means = (sums.sum(0) - sums) / (weights.sum() - weights)[:, None]
    # A difference of sums that were rounded to float32 may fall just below zero; a Fisher never does.
    return means.clip(min=0), weights.sum() / weights


def jackknife_variance(full: ArrayLike, deleted: ArrayLike, ratios: ArrayLike) -> Array:
    r"""Variance of a statistic from its values without each group, for groups of unequal weight.

    With h_g = W / w_g, pseudo-values t_g = h_g full - (h_g - 1) deleted_g, and
    t = G full - sum_g (1 - 1/h_g) deleted_g, it is the mean over g of (t_g - t)^2 / (h_g - 1): Busing,
    Meijer and van der Leeden, *Delete-m jackknife for unequal m*, Statistics and Computing 9 (1999). For
    groups of equal weight it is the usual (G - 1)/G sum_g (deleted_g - mean)^2.

    Args:
        full: [...], the statistic of all images.
        deleted: [G, ...], without each group.
        ratios: [G], h_g.

    >>> float(jackknife_variance(4.0, [6.0, 2.0], [2.0, 2.0]))
    4.0
    """
    full, deleted, h = _columns(full, deleted, ratios)
    pseudo = h * full - (h - 1) * deleted
    centre = full - jackknife_bias(full, deleted, ratios)
    return np.asarray(((pseudo - centre) ** 2 / (h - 1)).mean(0))


def jackknife_bias(full: ArrayLike, deleted: ArrayLike, ratios: ArrayLike) -> Array:
    r"""By how much a statistic of these images exceeds that of infinitely many: full - t, in the terms above.

    It is 0 for a statistic that is linear in the images. Arguments are those of `jackknife_variance`.

    >>> float(jackknife_bias(4.0, [6.0, 2.0], [2.0, 2.0])), float(jackknife_bias(4.0, [6.0, 6.0], [2.0, 2.0]))
    (0.0, 2.0)
    """
    full, deleted, h = _columns(full, deleted, ratios)
    return np.asarray(((1 - 1 / h) * deleted).sum(0) - (len(h) - 1) * full)


def halves(sums: ArrayLike, weights: ArrayLike) -> Iterator[tuple[Array, Array]]:
    """Pairs of means [D] over two disjoint halves of the groups, one pair for each bit of a group's number.

    Groups 0 to 15 give four ways to halve them: by the last bit, the last but one, and so on. Empty groups
    are skipped.

    Raises:
        ValueError: fewer than two groups have weight.

    >>> [(a.tolist(), b.tolist()) for a, b in halves([[2.0], [6.0]], [1.0, 1.0])]
    [([2.0], [6.0])]
    """
    sums, weights = _with_weight(sums, weights)
    number = np.arange(len(weights))
    for bit in range((len(weights) - 1).bit_length()):
        first = (number >> bit) % 2 == 0
        yield (
            sums[first].sum(0) / weights[first].sum(),
            sums[~first].sum(0) / weights[~first].sum(),
        )


def _columns(full: ArrayLike, deleted: ArrayLike, ratios: ArrayLike) -> tuple[Array, Array, Array]:
    """The arguments in float64, the ratios shaped so that they broadcast against [G, ...]."""
    full = np.asarray(full, np.float64)
    return full, np.asarray(deleted, np.float64), np.asarray(ratios, np.float64).reshape(-1, *[1] * full.ndim)


def _with_weight(sums: ArrayLike, weights: ArrayLike) -> tuple[Array, Array]:
    sums, weights = np.asarray(sums, np.float64), np.asarray(weights, np.float64)
    sums, weights = sums[weights > 0], weights[weights > 0]
    if len(weights) < 2:
        raise ValueError(
            f"the uncertainty of an embedding comes from its groups of images; this one has {len(weights)}"
            " with images in it, and two are needed. Use more images"
        )
    return sums, weights
