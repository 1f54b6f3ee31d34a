r"""Distances between task embeddings.

===================  ===============================================================================
`cosine`             cosine distance of h0 / (h0 + h1 + 1e-8) and h1 / (h0 + h1 + 1e-8); default
`kl`                 sum of the larger of KL(0|1) and KL(1|0) per entry
`asymmetric_kl`      [i, j] is the sum of KL(i|j)
`jsd`                mean of (KL(0|m) + KL(1|m)) / 2, where v_m = (v0 + v1) / 2
`normalized_cosine`  cosine distance of v * s
`correlation`        one minus the correlation of v
`entropy`            log 2 minus the mean binary entropy of h0 / (h0 + h1 + 1e-8)
`asymmetric`         [i, j] is d(i -> j) = cosine(i, j) - alpha * cosine(i, t0), t0 the trivial task
`cosine_unit`        `cosine` of vectors scaled to one length
===================  ===============================================================================

Entries h (Fisher), s (scale), v = 1/h; KL(a|b) = (v_a/v_b - 1 + log v_b - log v_a) / 2 per entry.
Source: Achille et al., Task2Vec, ICCV 2019, arXiv:1902.03545, and its reference implementation.
Embeddings are objects with `fisher` and `scale`, such as `t2v_lightning.Embedding`, or plain vectors of
Fisher entries, whose scale is taken as 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from t2v_lightning._spelling import did_you_mean
from t2v_lightning.functional.distances.formulas import FORMULAS, Distance, Rows
from t2v_lightning.functional.distances.jackknife import halves
from t2v_lightning.functional.distances.progress import Progress, pair_counter
from t2v_lightning.functional.distances.rows import (
    Embeddings,
    check_comparable,
    gather,
    groups_of,
    warn_about_dead,
)
from t2v_lightning.functional.distances.tiles import fill_distances, stderr

Matrix = NDArray[np.float64]

DISTANCES: Mapping[str, Distance] = MappingProxyType(FORMULAS)
"""The distances by name."""


@overload
def pdist(
    embeddings: Embeddings, distance: str = ..., *, return_stderr: Literal[True], **options: Any
) -> tuple[Matrix, Matrix]: ...
@overload
def pdist(
    embeddings: Embeddings, distance: str = ..., *, return_stderr: Literal[False] = ..., **options: Any
) -> Matrix: ...
def pdist(
    embeddings: Embeddings, distance: str = "cosine", *, return_stderr: bool = False, **options: Any
) -> Matrix | tuple[Matrix, Matrix]:
    """Distances between all pairs of n embeddings.

    Args:
        embeddings: n embeddings, vectors [D], or one array [n, D].
        distance: a name in `DISTANCES`.
        return_stderr: return the standard errors too, by a delete-one-group jackknife
            (`t2v_lightning.functional.distances.jackknife`). The two embeddings of a pair count as
            independent: each group of the one is deleted, then each of the other, and the variances are
            added. The square of the bias that the same deletions show is added too: noise drives two
            embeddings apart. The diagonal is 0. The variance-based distances turn on filters that few
            images excite, and their errors are then too small.
        out: array [n, n] that takes the distances, such as a `numpy.memmap` for many embeddings.
        progress: a function, called with the number of finished pairs and of all pairs during the work. Pairs
            with a group deleted count too.
        alpha: weight of the second term of `asymmetric`, 0.15 by default.
        trivial: the embedding t0 of `asymmetric`. Variational embeddings have their own,
            fisher = scale; Monte Carlo embeddings have no such unit, so for them it must be given.

    Returns:
        float64 [n, n], symmetric with a zero diagonal except for `asymmetric_kl` and `asymmetric`;
        with `return_stderr` also the standard errors, float64 [n, n]. The arithmetic of `cosine`
        is in float32 (error below 1e-6), that of the others in float64. The work is shared by
        `torch.get_num_threads()` threads. With the package numba, many pairs of `cosine` run compiled; without it
        `cosine` takes one thread, as NumPy's threads would mostly wait for each other.

    Raises:
        ValueError: an unknown distance; embeddings that differ in what they are `comparable_by`, such as
            probe, method or layout; no embeddings; an embedding of zeros; `asymmetric` without a trivial
            embedding; standard errors of embeddings that carry no sums over groups.
        TypeError: something that is not an embedding, or an unknown option.

    >>> pdist([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).round(6)
    array([[0., 1., 0.],
           [1., 0., 1.],
           [0., 1., 0.]])
    """
    return _distances(embeddings, None, distance, return_stderr, **options)


@overload
def cdist(
    a: Embeddings, b: Embeddings, distance: str = ..., *, return_stderr: Literal[True], **options: Any
) -> tuple[Matrix, Matrix]: ...
@overload
def cdist(
    a: Embeddings,
    b: Embeddings,
    distance: str = ...,
    *,
    return_stderr: Literal[False] = ...,
    **options: Any,
) -> Matrix: ...
def cdist(
    a: Embeddings,
    b: Embeddings,
    distance: str = "cosine",
    *,
    return_stderr: bool = False,
    **options: Any,
) -> Matrix | tuple[Matrix, Matrix]:
    """Distances from each of m embeddings to each of n others.

    Arguments, options and errors are those of `pdist`.

    Returns:
        float64 [m, n]; with `return_stderr` also the standard errors, float64 [m, n].

    >>> cdist([[1.0, 0.0]], [[0.0, 2.0], [3.0, 0.0]]).round(6)
    array([[1., 0.]])
    """
    return _distances(a, b, distance, return_stderr, **options)


def noise_floor(embeddings: Embeddings, distance: str = "cosine") -> Matrix:
    """How far apart two independent halves of one task lie; distances below it mean little.

    The groups of images of an embedding are halved by each bit of their number (16 groups: four
    ways), and the floor is the mean distance between the halves. A half has only half of the images,
    so two embeddings of all images lie closer still. For `asymmetric` it is the floor of its first
    term, `cosine`.

    Returns:
        float64 [n], one floor for each embedding.

    Raises:
        ValueError: an unknown distance, embeddings that carry no sums over groups, or an embedding that
            has all its information in one group.
    """
    kind = _kind("cosine" if distance == "asymmetric" else distance)
    rows = gather(embeddings)
    floors = np.empty(len(rows))
    for i, embedding in enumerate(embeddings):
        scale = rows.scale[i : i + 1]
        pairs = halves(*groups_of(embedding, f"embeddings[{i}]"))
        tiles = [(gather([x]), gather([y])) for x, y in pairs if x.any() and y.any()]
        if not tiles:
            raise ValueError(
                f"embeddings[{i}]: one group of its images holds all its information. Use more images"
            )
        floors[i] = np.mean(
            [kind.formula(replace(x, scale=scale), replace(y, scale=scale)) for x, y in tiles]
        )
    return floors


def _distances(
    a: Embeddings,
    b: Embeddings | None,
    distance: str,
    return_stderr: bool,
    *,
    out: Matrix | None = None,
    progress: Progress | None = None,
    alpha: float = 0.15,
    trivial: Any = None,
) -> Matrix | tuple[Matrix, Matrix]:
    """The work of `pdist` (`b` is None) and `cdist`."""
    kind = _kind(distance)
    rows = gather(a, "embeddings" if b is None else "a")
    columns = None if b is None else gather(b, "b")
    others = [] if b is None else list(b)
    check_comparable([*a, *others] if trivial is None else [*a, *others, trivial])
    if distance == "asymmetric":
        second = {"alpha": alpha, "trivial": _trivial(rows, trivial)}
        fused = kind.fused and partial(kind.fused, **second)
        kind = replace(kind, formula=partial(kind.formula, **second), fused=fused)
    groups_a = [groups_of(e, f"embedding {i}") for i, e in enumerate(a)] if return_stderr else []
    groups_b = [groups_of(e, f"embedding {i} of b") for i, e in enumerate(others)] if return_stderr else []
    shape = (len(rows), len(rows if columns is None else columns))
    size = rows.fisher.shape[1]
    if columns is not None and columns.fisher.shape[1] != size:
        raise ValueError(f"embeddings of {size} and of {columns.fisher.shape[1]} entries cannot be compared")
    if out is None:
        out = np.empty(shape)
    elif out.shape != shape or out.dtype.kind != "f":
        raise ValueError(f"out is {out.dtype} {list(out.shape)}; expected an array of floats {list(shape)}")
    if kind.uses_variance:
        warn_about_dead([rows] if columns is None else [rows, columns], distance)
    deletions_a, deletions_b = (sum(int((w > 0).sum()) for _, w in groups) for groups in (groups_a, groups_b))
    if columns is None and not kind.symmetric:
        deletions_b = deletions_a
    advance = pair_counter(progress, shape[0] * shape[1] + deletions_a * shape[1] + deletions_b * shape[0])
    fill_distances(out, kind, rows, columns, advance)
    if not return_stderr:
        return out
    side_b = None if columns is None else (columns, groups_b)
    return out, stderr(kind, (rows, groups_a), side_b, out, advance)


def _kind(distance: str) -> Distance:
    if distance not in DISTANCES:
        near = did_you_mean(distance, DISTANCES)
        raise ValueError(f"unknown distance {distance!r}; allowed are {', '.join(DISTANCES)}{near}")
    return DISTANCES[distance]


def _trivial(rows: Rows, trivial: Any) -> Rows | None:
    """The embedding t0 as one row, or None where each of the rows has its own (fisher = scale)."""
    size = rows.fisher.shape[1]
    if trivial is not None:
        unit = gather([trivial], "trivial")
        if unit.fisher.shape[1] != size:
            raise ValueError(f"trivial has {unit.fisher.shape[1]} entries; the embeddings have {size}")
        return unit
    without = (rows.scale == 1).all(1)
    if without.any():
        raise ValueError(
            f"embedding {int(without.argmax())} has no trivial embedding of its own: only variational ones do"
            " (fisher = scale), Monte Carlo ones have no such unit. Pass trivial=, an embedding to"
            " measure complexity from"
        )
    return None
