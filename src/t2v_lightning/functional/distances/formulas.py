r"""The formulas of the distances between embeddings, each for a tile of m times n pairs.

Entries h (Fisher), s (scale), v = 1/h (variance). Formulas follow Achille et al., Task2Vec (ICCV 2019,
arXiv:1902.03545), and its reference implementation. An entry that is zero in either embedding of a pair
(a dead filter) has no variance, so the variance-based formulas leave it out of that pair.

Every formula takes rows a [m, D] and b [n, D], returns float64 [m, n] and runs in one thread: the tiles of a matrix
run side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import xlogy

from t2v_lightning.functional.distances.compiled import fused_cosines
from t2v_lightning.functional.distances.products import matrix_product, row_products

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

EPSILON = 1e-8
# Below this an entry counts as zero: its inverse would overflow.
_TINY = np.finfo(np.float64).tiny
# Bytes of a scratch array of the pairwise formulas: in cache, and long enough that threads seldom meet at the GIL.
_SCRATCH = 1 << 19


@dataclass(frozen=True)
class Rows:
    """Embeddings one under the other: `fisher` and `scale`, both [n, D]."""

    fisher: NDArray[Any]
    scale: Matrix

    def __len__(self) -> int:
        return len(self.fisher)

    def __getitem__(self, which: slice) -> Rows:
        return Rows(self.fisher[which], self.scale[which])


Formula = Callable[[Rows, Rows], Matrix]


@dataclass(frozen=True)
class Distance:
    """A formula, with what is needed to cut the work into tiles of pairs.

    `fused` is the same formula compiled, worth its start-up time for many pairs; `prepare` is applied once to all rows
    before they are cut. `shared` says whether tiles of `formula` run side by side: where its single operations are so
    short that threads mostly wait for the GIL, one thread alone is faster than two. Tiles of `fused` always do.
    """

    formula: Formula
    fused: Formula | None = None
    prepare: Callable[[Rows], Rows] | None = None
    symmetric: bool = True
    zero_diagonal: bool = True
    uses_variance: bool = False
    shared: bool = True
    tile: tuple[int, int] = (32, 128)


def single_precision(rows: Rows) -> Rows:
    """The rows in float32, unless one of their quotients could fall outside its range."""
    peaks = rows.fisher.max(1)
    fits = peaks.min() > 1e-10 and peaks.max() < 1e8
    return Rows(rows.fisher.astype(np.float32), rows.scale) if fits else rows


def cosine(a: Rows, b: Rows) -> Matrix:
    """`1 - cos(p, q)` with p = h0 / (h0 + h1 + 1e-8) and q = h1 / (h0 + h1 + 1e-8).

    Quotients are in the dtype of the rows, float32 in most cases; the error is then below 1e-6.
    """
    h0, h1 = _one_dtype(a, b)
    pp, pq, qq = np.empty((3, len(h0), len(h1)))
    for part, (p, q) in _scratch(h1, 2):
        y = h1[part]
        shifted = y + EPSILON
        for i, x in enumerate(h0):
            np.add(shifted, x, out=q)
            np.divide(x, q, out=p)
            np.divide(y, q, out=q)
            pp[i, part], pq[i, part], qq[i, part] = row_products(p, p), row_products(p, q), row_products(q, q)
    return np.asarray((1 - pq / np.sqrt(pp * qq)).clip(min=0))


def fused_cosine(a: Rows, b: Rows) -> Matrix:
    """`cosine`, compiled."""
    return np.asarray((1 - fused_cosines(*_one_dtype(a, b), EPSILON)).clip(min=0))


def cosine_unit(a: Rows, b: Rows, near: Formula = cosine) -> Matrix:
    """`cosine` of vectors that are first scaled to one length, a root mean square of 1.

    Without it a task that is harder for all filters alike lies far from an easy one; with it only the shares of the
    filters count.
    """
    return near(_unit(a), _unit(b))


def kl(a: Rows, b: Rows) -> Matrix:
    """Sum over the entries of the larger of KL(0|1) and KL(1|0).

    KL(0|1) = (v0/v1 - 1 + log v1 - log v0) / 2 is that of two centred Gaussians. With r = v0/v1 the larger of
    the two directions is the one whose ratio is above 1: (max(r, 1/r) - 1 - |log r|) / 2.
    """
    h0, g0, l0, k0 = _with_inverse_and_log(a.fisher)
    h1, g1, l1, k1 = _with_inverse_and_log(b.fisher)
    dense = k0.all() and k1.all()
    sums = np.empty((len(h0), len(h1)))
    for part, (ratio, other) in _scratch(h1, 2):
        for i in range(len(h0)):
            np.multiply(h0[i], g1[part], out=ratio)
            np.maximum(ratio, np.multiply(g0[i], h1[part], out=other), out=ratio)
            np.abs(np.subtract(l0[i], l1[part], out=other), out=other)
            if not dense:
                other *= k0[i] & k1[part]
            sums[i, part] = np.subtract(ratio, other, out=ratio).sum(1)
    return np.asarray(((sums - _common(k0, k1)) / 2).clip(min=0))


def asymmetric_kl(a: Rows, b: Rows) -> Matrix:
    """Sum over the entries of KL(0|1): sums of products, hence a few matrix products."""
    _, g0, l0, k0 = _with_inverse_and_log(a.fisher)
    h1, _, l1, k1 = _with_inverse_and_log(b.fisher)
    sums = matrix_product(g0, h1) - _common(k0, k1) - _sum_where(l1, k0).T + _sum_where(l0, k1)
    return np.asarray((sums / 2).clip(min=0))


def jsd(a: Rows, b: Rows) -> Matrix:
    """Mean over the entries of (KL(0|m) + KL(1|m)) / 2, with v_m = (v0 + v1) / 2.

    The ratios of variances cancel, which leaves (2 log((h0 + h1) / 2) - log h0 - log h1) / 4.
    """
    h0, _, l0, k0 = _with_inverse_and_log(a.fisher)
    h1, _, l1, k1 = _with_inverse_and_log(b.fisher)
    dense = k0.all() and k1.all()
    sums = np.empty((len(h0), len(h1)))
    for part, (mean,) in _scratch(h1, 1):
        for i in range(len(h0)):
            np.add(h0[i], h1[part], out=mean)
            if not dense:
                mean[~(k0[i] & k1[part])] = 2
            sums[i, part] = np.log(mean, out=mean).sum(1)
    count = _common(k0, k1)
    # log((h0 + h1) / 2) adds up to the sum of log(h0 + h1) less log 2 for every entry, kept or not.
    sums = 2 * (sums - math.log(2) * h0.shape[1]) - _sum_where(l0, k1) - _sum_where(l1, k0).T
    return np.asarray((sums / (4 * count)).clip(min=0))


def normalized_cosine(a: Rows, b: Rows) -> Matrix:
    """`1 - cos(v0 s0, v1 s1)`."""
    (x, k0), (y, k1) = _variance(a.fisher, a.scale), _variance(b.fisher, b.scale)
    _common(k0, k1)
    norms = np.sqrt(_sum_where(x * x, k1) * _sum_where(y * y, k0).T)
    return np.asarray(1 - matrix_product(x, y) / norms)


def correlation(a: Rows, b: Rows) -> Matrix:
    """One minus Pearson's correlation of v0 and v1."""
    (x, k0), (y, k1) = _variance(a.fisher), _variance(b.fisher)
    # Centring each row first keeps the digits; the means of a pair differ from it only by the left-out entries.
    x, y = (z - z.sum(1, keepdims=True) / k.sum(1, keepdims=True) * k for z, k in ((x, k0), (y, k1)))
    count = _common(k0, k1)
    sum_x, sum_y = _sum_where(x, k1), _sum_where(y, k0).T
    squares_x, squares_y = _sum_where(x * x, k1), _sum_where(y * y, k0).T
    var_x, var_y = squares_x - sum_x**2 / count, squares_y - sum_y**2 / count
    # A left-out entry far above the others costs them their digits: such pairs are computed one by one.
    poor = (var_x < 1e-7 * squares_x) | (var_y < 1e-7 * squares_y) | (squares_x == 0) | (squares_y == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        result = 1 - (matrix_product(x, y) - sum_x * sum_y / count) / np.sqrt(var_x * var_y)
    for i, j in np.argwhere(poor):
        keep = k0[i] & k1[j]
        result[i, j] = 1 - _correlation(1 / a.fisher[i, keep], 1 / b.fisher[j, keep])
    return np.asarray(result)


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    x, y = (z / z.max() for z in (x, y))
    x, y = x - x.mean(), y - y.mean()
    norms = math.sqrt(row_products(x, x) * row_products(y, y))
    if norms <= 1e-14 * len(x):
        raise ValueError("a correlation is not defined where all entries in common are equal. Use 'cosine'")
    return float(row_products(x, y)) / norms


def entropy(a: Rows, b: Rows) -> Matrix:
    """log 2 minus the mean binary entropy of p = h0 / t, where t = h0 + h1 + 1e-8.

    With q = 1 - p = (h1 + 1e-8) / t that entropy is log t - (h0 log h0 + (h1 + 1e-8) log(h1 + 1e-8)) / t.
    """
    h0, h1 = a.fisher, b.fisher + EPSILON
    x0, x1 = xlogy(h0, h0), xlogy(h1, h1)
    means = np.empty((len(h0), len(h1)))
    for part, (total, weighted) in _scratch(h1, 2):
        for i in range(len(h0)):
            np.add(h0[i], h1[part], out=total)
            np.add(x0[i], x1[part], out=weighted)
            np.divide(weighted, total, out=weighted)
            np.log(total, out=total)
            means[i, part] = np.subtract(total, weighted, out=total).mean(1)
    return np.asarray((math.log(2) - means).clip(min=0))


def asymmetric(
    a: Rows, b: Rows, alpha: float = 0.15, trivial: Rows | None = None, near: Formula = cosine
) -> Matrix:
    """d(a -> b) = cosine(a, b) - alpha * cosine(a, t0), t0 being `trivial`, or else fisher = scale of a."""
    if trivial is not None:
        unit = cosine(a, trivial)
    else:
        rows = zip(a.fisher, a.scale, strict=True)
        unit = np.concatenate([cosine(Rows(h[None], s[None]), Rows(s[None], s[None])) for h, s in rows])
    return near(a, b) - alpha * unit


def is_dead(fisher: Matrix) -> Mask:
    """Which entries count as zero."""
    return fisher < _TINY


def _unit(rows: Rows) -> Rows:
    """The rows with Fisher entries whose mean square is 1."""
    lengths = np.sqrt(row_products(rows.fisher, rows.fisher) / rows.fisher.shape[1])
    return replace(rows, fisher=rows.fisher / lengths[:, None].astype(rows.fisher.dtype))


def _one_dtype(a: Rows, b: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
    """Their Fisher entries in the wider dtype of the two, row by row."""
    dtype = np.result_type(a.fisher, b.fisher)
    return np.require(a.fisher, dtype, "C"), np.require(b.fisher, dtype, "C")


def _scratch(rows: NDArray[Any], count: int) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Runs of rows that stay in cache while each row of the other side meets them, with scratch arrays."""
    step = max(1, _SCRATCH // (rows.shape[1] * rows.itemsize))
    shape = count, min(step, len(rows)), rows.shape[1]
    space = torch.empty(shape, dtype=getattr(torch, rows.dtype.name), device="cpu").numpy()  # on a cache line
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        yield part, space[:, : part.stop - start]


def _with_inverse_and_log(h: Matrix) -> tuple[Matrix, Matrix, Matrix, Mask]:
    """h, 1/h and log h with zeros where h is zero, and where it is not."""
    keep = ~is_dead(h)
    safe = np.where(keep, h, 1)
    return h * keep, keep / safe, np.log(safe), keep


def _variance(h: Matrix, scale: Matrix | None = None) -> tuple[Matrix, Mask]:
    """v times the scale, each row up to a factor that keeps it at 1 or below, and where h is not zero."""
    keep = ~is_dead(h)
    v = keep / np.where(keep, h, 1)
    v /= v.max(1, keepdims=True)
    if scale is not None:
        v *= scale
        v /= v.max(1, keepdims=True)
    return v, keep


def _sum_where(x: Matrix, keep: Mask) -> Matrix:
    """[m, n]: sums over the entries of row i of `x` [m, D] that row j of `keep` [n, D] has."""
    if keep.all():
        return np.broadcast_to(x.sum(1, keepdims=True), (len(x), len(keep)))
    return matrix_product(x, keep.astype(x.dtype))


def _common(k0: Mask, k1: Mask) -> Matrix:
    """[m, n]: how many entries a pair has in common; an error if there are none."""
    count = _sum_where(k0.astype(np.float64), k1)
    if not count.all():
        raise ValueError(
            "two embeddings have no entry in common that is above zero: a variance-based distance between"
            " them is not defined. Use 'cosine'"
        )
    return count


FORMULAS = {
    "cosine": Distance(cosine, fused=fused_cosine, prepare=single_precision, shared=False, tile=(16, 128)),
    "kl": Distance(kl, uses_variance=True),
    "asymmetric_kl": Distance(asymmetric_kl, symmetric=False, uses_variance=True, tile=(64, 128)),
    "jsd": Distance(jsd, uses_variance=True),
    "normalized_cosine": Distance(normalized_cosine, uses_variance=True, tile=(64, 128)),
    "correlation": Distance(correlation, uses_variance=True, tile=(64, 128)),
    "entropy": Distance(entropy),
}
FORMULAS["asymmetric"] = replace(
    FORMULAS["cosine"],
    formula=asymmetric,
    fused=partial(asymmetric, near=fused_cosine),
    symmetric=False,
    zero_diagonal=False,
)
FORMULAS["cosine_unit"] = replace(
    FORMULAS["cosine"], formula=cosine_unit, fused=partial(cosine_unit, near=fused_cosine)
)
