"""Matrices of distances and of their standard errors, tile by tile, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from t2v_lightning.functional.formulas import Distance, Rows
from t2v_lightning.functional.fused import WORTHWHILE, is_available
from t2v_lightning.functional.jackknife import jackknife_variance, leave_one_out

Matrix = NDArray[np.float64]
Groups = tuple[Tensor, Tensor]
Advance = Callable[[int], None]

# Pairs times entries from which a computation shows a progress bar: some ten seconds.
_LONG = 2e10
# Embeddings whose deletions are held at a time.
_DELETED_AT_ONCE = 8


def fill_distances(out: Matrix, kind: Distance, a: Rows, b: Rows | None, advance: Advance) -> None:
    """Write the distances from ``a`` [m, D] to ``b`` [n, D], or among ``a``, into ``out`` [m, n]."""
    mirrored = b is None and kind.symmetric
    columns = a if b is None else b
    formula = kind.formula
    if kind.fused is not None and out.size * a.fisher.shape[1] > WORTHWHILE and is_available():
        formula = kind.fused
    if kind.prepare is not None:
        a, columns = kind.prepare(a), kind.prepare(columns)
    for i in range(0, len(a), kind.tile[0]):
        rows = slice(i, i + kind.tile[0])
        for j in range(i if mirrored else 0, len(columns), kind.tile[1]):
            part = slice(j, j + kind.tile[1])
            values = formula(a[rows], columns[part]).numpy()
            out[rows, part] = values
            if mirrored:
                out[part, rows] = values.T
            advance(values.size)
        if mirrored:
            # `entropy` differs by rounding-like terms when a pair is turned round; one order counts.
            square = out[rows, rows].T
            out[rows, rows] = np.triu(square) + np.triu(square, 1).T
            advance(len(square) * i)
    if b is None and kind.zero_diagonal:
        np.fill_diagonal(out, 0)


def stderr(
    kind: Distance,
    a: tuple[Rows, list[Groups]],
    b: tuple[Rows, list[Groups]] | None,
    distances: Matrix,
    advance: Advance,
) -> Matrix:
    """Standard errors [m, n] of ``distances`` [m, n]; of the distances among ``a`` when ``b`` is None."""
    rows, columns = a[0], a[0] if b is None else b[0]
    variance = _deletion_variance(kind, a, columns, distances, advance)
    if b is None and kind.symmetric:
        variance = variance + variance.T
    else:
        flipped = replace(kind, formula=lambda x, y: kind.formula(y, x).T, fused=None)
        variance += _deletion_variance(flipped, a if b is None else b, rows, distances.T, advance).T
    if b is None:
        np.fill_diagonal(variance, 0)
    return np.sqrt(variance)


def _deletion_variance(
    kind: Distance, a: tuple[Rows, list[Groups]], columns: Rows, distances: Matrix, advance: Advance
) -> Matrix:
    """The part [m, n] of the variance that comes from deleting the groups of ``a`` in turn."""
    rows, groups = a
    variance = np.empty(distances.shape)
    for first in range(0, len(rows), _DELETED_AT_ONCE):
        members = range(first, min(first + _DELETED_AT_ONCE, len(rows)))
        parts = [leave_one_out(*groups[i]) for i in members]
        scale = [rows.scale[i].expand_as(means) for i, (means, _) in zip(members, parts, strict=True)]
        deleted = Rows(torch.cat([means for means, _ in parts]), torch.cat(scale))
        values = np.empty((len(deleted), len(columns)))
        fill_distances(values, kind, deleted, columns, advance)
        split = torch.split(torch.from_numpy(values), [len(means) for means, _ in parts])
        for i, value, (_, ratios) in zip(members, split, parts, strict=True):
            variance[i] = jackknife_variance(torch.from_numpy(distances[i].copy()), value, ratios).numpy()
    return variance


@contextmanager
def progress_bar(show: bool | None, pairs: int, size: int) -> Iterator[Advance]:
    """A function that counts finished pairs; it draws a bar when asked to, or when the work is long."""
    if not (pairs * size > _LONG if show is None else show):
        yield lambda done: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("distances", total=pairs)
        yield lambda done: bar.advance(task, done)
