r"""Distances between task embeddings.

=====================  =============================================================================
``cosine``             cosine distance of h0 / (h0 + h1 + 1e-8) and h1 / (h0 + h1 + 1e-8); default
``kl``                 sum of the larger of KL(0|1) and KL(1|0) per entry
``asymmetric_kl``      [i, j] is the sum of KL(i|j)
``jsd``                mean of (KL(0|m) + KL(1|m)) / 2, where v_m = (v0 + v1) / 2
``normalized_cosine``  cosine distance of v * s
``correlation``        one minus the correlation of v
``entropy``            log 2 minus the mean binary entropy of h0 / (h0 + h1 + 1e-8)
``asymmetric``         [i, j] is d(i -> j) = cosine(i, j) - alpha * cosine(i, t0), t0 the trivial task
=====================  =============================================================================

Entries h (Fisher), s (scale), v = 1/h; KL(a|b) = (v_a/v_b - 1 + log v_b - log v_a) / 2 per entry.
Source: Achille et al., Task2Vec, ICCV 2019, arXiv:1902.03545, and its reference implementation.
Embeddings are objects with ``fisher`` and ``scale``, such as :class:`t2v_lightning.Embedding`, or
plain vectors of Fisher entries, whose scale is taken as 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.functional.distances.formulas import FORMULAS, Distance, Rows
from t2v_lightning.functional.distances.jackknife import halves
from t2v_lightning.functional.distances.rows import (
    Embeddings,
    check_comparable,
    gather,
    groups_of,
    warn_about_dead,
)
from t2v_lightning.functional.distances.tiles import fill_distances, progress_bar, stderr

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
        distance: a name in :data:`DISTANCES`.
        return_stderr: return the standard errors too, by a delete-one-group jackknife
            (:mod:`t2v_lightning.functional.distances.jackknife`). The two embeddings of a pair count as
            independent: delete each group of the one, then of the other, and add the variances. The
            square of the bias that the same deletions show is added too: noise drives two embeddings
            apart. The diagonal is 0. Filters that few images excite make it too small for the
            variance-based distances, which then turn on those images.
        out: array [n, n] that takes the distances, such as a ``numpy.memmap`` for many embeddings.
        progress: show a progress bar; by default when the work is long.
        alpha: weight of the second term of ``asymmetric``, 0.15 by default.
        trivial: the embedding t0 of ``asymmetric``. Variational embeddings have their own,
            fisher = scale; Monte Carlo embeddings have no such unit, so for them it must be given.

    Returns:
        float64 [n, n], symmetric with a zero diagonal but for ``asymmetric_kl`` and ``asymmetric``;
        with ``return_stderr`` also the standard errors, float64 [n, n]. The arithmetic of ``cosine``
        is in float32 (error below 1e-6), that of the others in float64. The work is shared by
        ``torch.get_num_threads()`` threads; with the package numba, many pairs of ``cosine`` run compiled.

    Raises:
        ValueError: an unknown distance; embeddings of different probes, methods or layouts; no
            embeddings; an embedding of zeros; ``asymmetric`` without a trivial embedding; standard
            errors of embeddings that carry no sums over groups.
        TypeError: something that is no embedding, or an unknown option.

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

    Arguments, options and errors are those of :func:`pdist`.

    Returns:
        float64 [m, n]; with ``return_stderr`` also the standard errors, float64 [m, n].

    >>> cdist([[1.0, 0.0]], [[0.0, 2.0], [3.0, 0.0]]).round(6)
    array([[1., 0.]])
    """
    return _distances(a, b, distance, return_stderr, **options)


def noise_floor(embeddings: Embeddings, distance: str = "cosine") -> Matrix:
    """How far apart two independent halves of one task lie; below it, differences mean little.

    The groups of images of an embedding are halved by each bit of their number (16 groups: four
    ways), and the floor is the mean distance between the halves. A half has half of the images, so
    two embeddings of all of them lie closer still. For ``asymmetric`` it is the floor of its first
    term, ``cosine``.

    Returns:
        float64 [n], one floor for each embedding.

    Raises:
        ValueError: an unknown distance, embeddings that carry no sums over groups, or one of which a single
            group holds everything.
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
                f"embeddings[{i}]: one group of its images holds all its information. Use more images."
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
    progress: bool | None = None,
    alpha: float = 0.15,
    trivial: Any = None,
) -> Matrix | tuple[Matrix, Matrix]:
    """The work of :func:`pdist` (``b`` is None) and :func:`cdist`."""
    kind = _kind(distance)
    rows = gather(a, "embeddings" if b is None else "a")
    columns = None if b is None else gather(b, "b")
    others = [] if b is None else list(b)
    check_comparable([*a, *others] if trivial is None else [*a, *others, trivial])
    if distance == "asymmetric":
        second = {"alpha": alpha, "trivial": _trivial(a, rows, trivial)}
        fused = kind.fused and partial(kind.fused, **second)
        kind = replace(kind, formula=partial(kind.formula, **second), fused=fused)
    groups_a = [groups_of(e, f"embedding {i}") for i, e in enumerate(a)] if return_stderr else []
    groups_b = [groups_of(e, f"embedding {i} of b") for i, e in enumerate(others)] if return_stderr else []
    shape = (len(rows), len(rows if columns is None else columns))
    size = rows.fisher.shape[1]
    if columns is not None and columns.fisher.shape[1] != size:
        raise ValueError(f"embeddings of {size} and of {columns.fisher.shape[1]} entries cannot be compared.")
    if out is None:
        out = np.empty(shape)
    elif out.shape != shape or out.dtype.kind != "f":
        raise ValueError(f"out is {out.dtype} {list(out.shape)}; expected an array of floats {list(shape)}.")
    if kind.uses_variance:
        warn_about_dead([rows] if columns is None else [rows, columns], distance)
    with progress_bar(progress, shape[0] * shape[1], size) as advance:
        fill_distances(out, kind, rows, columns, advance)
    if not return_stderr:
        return out
    work_a, work_b = (sum(len(weights) for _, weights in groups) for groups in (groups_a, groups_b))
    if columns is None and not kind.symmetric:
        work_b = work_a
    with progress_bar(progress, work_a * shape[1] + work_b * shape[0], size) as advance:
        side_b = None if columns is None else (columns, groups_b)
        return out, stderr(kind, (rows, groups_a), side_b, out, advance)


def _kind(distance: str) -> Distance:
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; choose one of {', '.join(DISTANCES)}.")
    return DISTANCES[distance]


def _trivial(a: Embeddings, rows: Rows, trivial: Any) -> Rows | None:
    """The embedding t0 as one row, or None where each of ``a`` has its own (fisher = scale)."""
    size = rows.fisher.shape[1]
    if trivial is not None:
        unit = gather([trivial], "trivial")
        if unit.fisher.shape[1] != size:
            raise ValueError(f"trivial has {unit.fisher.shape[1]} entries; the embeddings have {size}.")
        return unit
    for i, embedding in enumerate(a):
        method = (getattr(embedding, "meta", None) or {}).get("method")
        if method not in (None, "variational") or bool((rows.scale[i] == 1).all()):
            raise ValueError(
                f"embedding {i} has no trivial embedding of its own: only variational ones do"
                " (fisher = scale), Monte Carlo ones have no such unit. Pass trivial=, an embedding to"
                " measure complexity from."
            )
    return None
