r"""The formulas of the distances between embeddings, each for a tile of m times n pairs.

Entries h (Fisher), s (scale), v = 1/h (variance). Formulas follow Achille et al., Task2Vec (ICCV 2019,
arXiv:1902.03545), and its reference implementation. An entry that is zero in either embedding of a pair
(a dead filter) has no variance, so the variance-based formulas leave it out of that pair.

Every formula takes rows a [m, D] and b [n, D] and returns float64 [m, n].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from t2v_lightning.functional.fused import fused_cosines

EPSILON = 1e-8
# Below this an entry counts as zero: its inverse would overflow.
_TINY = torch.finfo(torch.float64).tiny
# Scratch elements of the pairwise formulas: enough to keep the threads busy, few enough to stay in cache.
_SCRATCH = 1 << 18


@dataclass(frozen=True)
class Rows:
    """Embeddings one under the other: ``fisher`` and ``scale``, both float64 [n, D]."""

    fisher: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.fisher)

    def __getitem__(self, which: slice) -> Rows:
        return Rows(self.fisher[which], self.scale[which])


Formula = Callable[[Rows, Rows], Tensor]


@dataclass(frozen=True)
class Distance:
    """A formula with what a caller has to know to cut the work into tiles of pairs.

    ``fused`` is the same formula compiled, worth its start-up time for many pairs; ``prepare`` is done once
    to all rows before they are cut.
    """

    formula: Formula
    fused: Formula | None = None
    prepare: Callable[[Rows], Rows] | None = None
    symmetric: bool = True
    zero_diagonal: bool = True
    uses_variance: bool = False
    tile: tuple[int, int] = (512, 512)


def single_precision(rows: Rows) -> Rows:
    """The rows in float32, unless a quotient of theirs could leave its range."""
    peaks = rows.fisher.amax(1)
    fits = bool(peaks.min() > 1e-10 and peaks.max() < 1e8)
    return Rows(rows.fisher.float(), rows.scale) if fits else rows


def cosine(a: Rows, b: Rows, cosines: Callable[[Tensor, Tensor, float], Tensor] | None = None) -> Tensor:
    """``1 - cos(p, q)`` with p = h0 / (h0 + h1 + 1e-8) and q = h1 / (h0 + h1 + 1e-8).

    Quotients are in the dtype of the rows, float32 in most cases; the error is then below 1e-6.
    """
    dtype = torch.promote_types(a.fisher.dtype, b.fisher.dtype)
    similarity = (cosines or _cosines)(a.fisher.to(dtype), b.fisher.to(dtype), EPSILON)
    return (1 - similarity).clamp_(min=0)


def fused_cosine(a: Rows, b: Rows) -> Tensor:
    """:func:`cosine`, compiled."""
    return cosine(a, b, fused_cosines)


def _cosines(h0: Tensor, h1: Tensor, epsilon: float) -> Tensor:
    out = torch.empty(len(h0), len(h1), dtype=torch.float64)
    for part in _runs(h1):
        y = h1[part]
        shifted, (p, q) = y + epsilon, h0.new_empty(2, *y.shape)
        for i, x in enumerate(h0):
            torch.add(shifted, x, out=q)
            torch.div(x, q, out=p)
            torch.div(y, q, out=q)
            norms = torch.linalg.vector_norm(p, dim=1).double() * torch.linalg.vector_norm(q, dim=1).double()
            out[i, part] = p.mul_(q).sum(1).double() / norms
    return out


def kl(a: Rows, b: Rows) -> Tensor:
    """Sum over the entries of the larger of KL(0|1) and KL(1|0).

    KL(0|1) = (v0/v1 - 1 + log v1 - log v0) / 2 is that of two centred Gaussians. With r = v0/v1 the larger of
    the two directions is the one whose ratio is above 1: (max(r, 1/r) - 1 - |log r|) / 2.
    """
    h0, g0, l0, k0 = _with_inverse_and_log(a.fisher)
    h1, g1, l1, k1 = _with_inverse_and_log(b.fisher)
    dense = bool(k0.all() and k1.all())
    out = h0.new_empty(len(h0), len(h1))
    for part in _runs(h1):
        ratio, other = h0.new_empty(2, *h1[part].shape)
        for i in range(len(h0)):
            torch.mul(h0[i], g1[part], out=ratio)
            torch.maximum(ratio, torch.mul(g0[i], h1[part], out=other), out=ratio)
            logs = torch.sub(l0[i], l1[part], out=other).abs_()
            if not dense:
                logs *= k0[i] & k1[part]
            out[i, part] = ratio.sub_(logs).sum(1)
    return ((out - _common(k0, k1)) / 2).clamp_(min=0)


def asymmetric_kl(a: Rows, b: Rows) -> Tensor:
    """Sum over the entries of KL(0|1): sums of products, hence a few matrix products."""
    _, g0, l0, k0 = _with_inverse_and_log(a.fisher)
    h1, _, l1, k1 = _with_inverse_and_log(b.fisher)
    sums = g0 @ h1.T - _common(k0, k1) - _sum_where(l1, k0).T + _sum_where(l0, k1)
    return (sums / 2).clamp_(min=0)


def jsd(a: Rows, b: Rows) -> Tensor:
    """Mean over the entries of (KL(0|m) + KL(1|m)) / 2, with v_m = (v0 + v1) / 2.

    The ratios of variances cancel, which leaves (2 log((h0 + h1) / 2) - log h0 - log h1) / 4.
    """
    h0, _, l0, k0 = _with_inverse_and_log(a.fisher)
    h1, _, l1, k1 = _with_inverse_and_log(b.fisher)
    dense = bool(k0.all() and k1.all())
    out = h0.new_empty(len(h0), len(h1))
    for part in _runs(h1):
        mean = torch.empty_like(h1[part])
        for i in range(len(h0)):
            torch.add(h0[i], h1[part], out=mean).div_(2)
            if not dense:
                mean[~(k0[i] & k1[part])] = 1
            out[i, part] = mean.log_().sum(1)
    sums = 2 * out - _sum_where(l0, k1) - _sum_where(l1, k0).T
    return (sums / (4 * _common(k0, k1))).clamp_(min=0)


def normalized_cosine(a: Rows, b: Rows) -> Tensor:
    """``1 - cos(v0 s0, v1 s1)``."""
    x, k0 = _variance(a.fisher, a.scale)
    y, k1 = _variance(b.fisher, b.scale)
    _common(k0, k1)
    norms = _sum_where(x * x, k1) * _sum_where(y * y, k0).T
    return 1 - x @ y.T / norms.sqrt_()


def correlation(a: Rows, b: Rows) -> Tensor:
    """One minus Pearson's correlation of v0 and v1."""
    (x, k0), (y, k1) = _variance(a.fisher), _variance(b.fisher)
    # Centring each row first keeps the digits; the pair's own means differ from it by left-out entries alone.
    x, y = (z.sub(z.sum(1, keepdim=True) / k.sum(1, keepdim=True)) * k for z, k in ((x, k0), (y, k1)))
    count = _common(k0, k1)
    sum_x, sum_y = _sum_where(x, k1), _sum_where(y, k0).T
    var_x = _sum_where(x * x, k1) - sum_x**2 / count
    var_y = _sum_where(y * y, k0).T - sum_y**2 / count
    return 1 - (x @ y.T - sum_x * sum_y / count) / (var_x * var_y).sqrt_()


def entropy(a: Rows, b: Rows) -> Tensor:
    """log 2 minus the mean binary entropy of p = h0 / t, where t = h0 + h1 + 1e-8.

    With q = 1 - p = (h1 + 1e-8) / t that entropy is log t - (h0 log h0 + (h1 + 1e-8) log(h1 + 1e-8)) / t.
    """
    h0, h1 = a.fisher, b.fisher + EPSILON
    x0, x1 = torch.xlogy(h0, h0), torch.xlogy(h1, h1)
    out = h0.new_empty(len(h0), len(h1))
    for part in _runs(h1):
        total, weighted = h0.new_empty(2, *h1[part].shape)
        for i in range(len(h0)):
            torch.add(h0[i], h1[part], out=total)
            torch.add(x0[i], x1[part], out=weighted).div_(total)
            out[i, part] = total.log_().sub_(weighted).mean(1)
    return (math.log(2) - out).clamp_(min=0)


def asymmetric(
    a: Rows, b: Rows, alpha: float = 0.15, trivial: Rows | None = None, near: Formula = cosine
) -> Tensor:
    """d(a -> b) = cosine(a, b) - alpha * cosine(a, t0), t0 being ``trivial``, or else fisher = scale of a."""
    if trivial is not None:
        unit = cosine(a, trivial)
    else:
        rows = zip(a.fisher, a.scale, strict=True)
        unit = torch.cat([cosine(Rows(h[None], s[None]), Rows(s[None], s[None])) for h, s in rows])
    return near(a, b) - alpha * unit


def is_dead(fisher: Tensor) -> Tensor:
    """Which entries count as zero."""
    return fisher < _TINY


def _runs(rows: Tensor) -> list[slice]:
    """Runs of rows that stay in cache while every row of the other side meets them."""
    step = max(1, _SCRATCH // rows.shape[1])
    return [slice(j, j + step) for j in range(0, len(rows), step)]


def _with_inverse_and_log(h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """h, 1/h and log h with zeros where h is zero, and where it is not."""
    keep = ~is_dead(h)
    safe = torch.where(keep, h, 1.0)
    return h * keep, safe.reciprocal() * keep, safe.log(), keep


def _variance(h: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """v times the scale, each row up to a factor that keeps it at 1 or below, and where h is not zero."""
    keep = ~is_dead(h)
    v = torch.where(keep, h, 1.0).reciprocal() * keep
    v /= v.amax(1, keepdim=True)
    if scale is not None:
        v *= scale
        v /= v.amax(1, keepdim=True)
    return v, keep


def _sum_where(x: Tensor, keep: Tensor) -> Tensor:
    """[m, n]: sums over the entries of row i of ``x`` [m, D] that row j of ``keep`` [n, D] has."""
    return x.sum(1, keepdim=True).expand(-1, len(keep)) if keep.all() else x @ keep.to(x.dtype).T


def _common(k0: Tensor, k1: Tensor) -> Tensor:
    """[m, n]: how many entries a pair has in common; an error where that is none."""
    count = _sum_where(k0.double(), k1)
    if not count.all():
        raise ValueError(
            "two embeddings have no entry in common that is above zero: a variance-based distance between"
            " them is not defined. Use 'cosine'."
        )
    return count


_PAIRWISE_TILE = (32, 2048)
FORMULAS = {
    "cosine": Distance(cosine, fused_cosine, single_precision, tile=_PAIRWISE_TILE),
    "kl": Distance(kl, uses_variance=True, tile=_PAIRWISE_TILE),
    "asymmetric_kl": Distance(asymmetric_kl, symmetric=False, uses_variance=True),
    "jsd": Distance(jsd, uses_variance=True, tile=_PAIRWISE_TILE),
    "normalized_cosine": Distance(normalized_cosine, uses_variance=True),
    "correlation": Distance(correlation, uses_variance=True),
    "entropy": Distance(entropy, tile=_PAIRWISE_TILE),
}
FORMULAS["asymmetric"] = replace(
    FORMULAS["cosine"],
    formula=asymmetric,
    fused=partial(asymmetric, near=fused_cosine),
    symmetric=False,
    zero_diagonal=False,
)
