"""Matrices of distances and of their standard errors, tile by tile, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from t2v_lightning.functional.distances.compiled import WORTHWHILE, is_available
from t2v_lightning.functional.distances.formulas import Distance, Formula, Matrix, Rows
from t2v_lightning.functional.distances.jackknife import jackknife_bias, jackknife_variance, leave_one_out
from t2v_lightning.functional.distances.rows import Groups

Advance = Callable[[int], None]
"""Called with the number of pairs just finished, from several threads."""

# Number of embeddings whose deletions are in memory at a time.
_DELETED_AT_ONCE = 8


def fill_distances(out: Matrix, kind: Distance, a: Rows, b: Rows | None, advance: Advance) -> None:
    """Writes the distances from `a` [m, D] to `b` [n, D], or among `a`, into `out` [m, n]."""
    mirrored = b is None and kind.symmetric
    columns = a if b is None else b
    formula, (height, width) = kind.formula, kind.tile
    if kind.fused is not None and out.size * a.fisher.shape[1] > WORTHWHILE and is_available():
        formula = kind.fused
    if kind.prepare is not None:
        a = kind.prepare(a)
        columns = a if b is None else kind.prepare(columns)

    def fill_tile(corner: tuple[int, int]) -> None:
        start, first = corner
        rows, part = slice(start, start + height), slice(first, first + width)
        values = formula(a[rows], columns[part])
        filled = values.size
        if mirrored and first == start:
            # `entropy` differs when a pair is swapped, most for entries near 1e-8: the upper triangle counts.
            square = values[:, : len(values)]
            square[:] = np.triu(square) + np.triu(square, 1).T
            filled -= square.size
        out[rows, part] = values
        if mirrored:
            out[part, rows] = values.T
        advance(values.size + filled * mirrored)

    corners = [
        (start, first)
        for start in range(0, len(a), height)
        for first in range(start if mirrored else 0, len(columns), width)
    ]
    threads = min(torch.get_num_threads(), len(corners)) if kind.shared or formula is kind.fused else 1
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill_tile, corners))
    else:
        for corner in corners:
            fill_tile(corner)
    if b is None and kind.zero_diagonal:
        np.fill_diagonal(out, 0)


def stderr(
    kind: Distance,
    a: tuple[Rows, list[Groups]],
    b: tuple[Rows, list[Groups]] | None,
    distances: Matrix,
    advance: Advance,
) -> Matrix:
    """Standard errors [m, n] of `distances` [m, n]; of the distances among `a` when `b` is None.

    Their square is the variance plus the squared bias: noise in two embeddings drives them apart, so that a
    distance exceeds that of infinitely many images by about as much as it varies.
    """
    rows, columns = a[0], a[0] if b is None else b[0]
    variance, bias = _deletions(kind, a, columns, distances, advance)
    if b is None and kind.symmetric:
        other_variance, other_bias = variance, bias
    else:
        flipped = replace(kind, formula=_flip(kind.formula), fused=kind.fused and _flip(kind.fused))
        other_variance, other_bias = _deletions(flipped, a if b is None else b, rows, distances.T, advance)
    squares = variance + other_variance.T + (bias + other_bias.T) ** 2
    if b is None:
        np.fill_diagonal(squares, 0)
    return np.asarray(np.sqrt(squares))


def _flip(formula: Formula) -> Formula:
    return lambda a, b: formula(b, a).T


def _deletions(
    kind: Distance, a: tuple[Rows, list[Groups]], columns: Rows, distances: Matrix, advance: Advance
) -> tuple[Matrix, Matrix]:
    """The parts [m, n] of variance and bias that come from deleting the groups of `a` in turn."""
    rows, groups = a
    variance, bias = np.empty((2, *distances.shape))
    for first in range(0, len(rows), _DELETED_AT_ONCE):
        members = range(first, min(first + _DELETED_AT_ONCE, len(rows)))
        parts = [leave_one_out(*groups[i]) for i in members]
        lengths = [len(means) for means, _ in parts]
        deleted = Rows(
            np.concatenate([means for means, _ in parts]),
            np.repeat(rows.scale[members.start : members.stop], lengths, axis=0),
        )
        if not deleted.fisher.any(1).all():
            raise ValueError(
                "one group of an embedding's images holds all its information, so its uncertainty is not known. "
                "Use more images"
            )
        values = np.empty((len(deleted), len(columns)))
        fill_distances(values, kind, deleted, columns, advance)
        split = np.split(values, np.cumsum(lengths)[:-1])
        for i, value, (_, ratios) in zip(members, split, parts, strict=True):
            variance[i] = jackknife_variance(distances[i], value, ratios)
            bias[i] = jackknife_bias(distances[i], value, ratios)
    return variance, bias
