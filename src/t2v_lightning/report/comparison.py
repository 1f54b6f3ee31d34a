"""The embeddings of a report: their names, their families and the distances between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import noise_floor, pdist
from t2v_lightning.plots import leaf_order

Matrix = NDArray[np.float64]

_LONG = 2e10
"""Pairs times entries from which a progress bar is drawn: their distances take about ten seconds."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """n embeddings of tasks and the distances between them.

    Args:
        embeddings: n of them.
        names: n names, no two the same.
        distance: one of `functional.distances.DISTANCES`.
        matrix: float64 [n, n], the distances.
        floors: float64 [n], the noise floor of each task, NaN for embeddings that carry too few groups of images;
            None where all are NaN, and for `asymmetric`, which may be below zero.
    """

    embeddings: Sequence[Embedding]
    names: list[str]
    distance: str
    matrix: Matrix
    floors: Matrix | None

    @property
    def families(self) -> list[str] | None:
        """n names of groups of related tasks; None where no embedding has one."""
        families = [str(e.meta.get("family") or "") for e in self.embeddings]
        return families if any(families) else None

    @property
    def label(self) -> str:
        """What the numbers of the matrix are."""
        return f"{self.distance.replace('_', ' ')} distance"

    @property
    def order(self) -> list[int]:
        """Numbers of the tasks, similar ones side by side."""
        return leaf_order(self.matrix) if len(self.matrix) > 2 else list(range(len(self.matrix)))


def compare(embeddings: Sequence[Embedding], distance: str = "cosine_unit", **options: Any) -> Comparison:
    """Distances between embeddings of tasks, under names that tell them apart.

    Args:
        embeddings: at least two, of one method, probe and layout.
        distance: one of `functional.distances.DISTANCES`.
        options: `alpha` and `trivial` of `functional.distances.pdist`.

    Raises:
        ValueError: fewer than two embeddings, or some that cannot be compared; an unknown distance.

    >>> dogs, cats = (Embedding([1, x], [1, 1], meta={"task_name": "pets"}) for x in (1, 2))
    >>> compare([dogs, cats]).names
    ['pets', 'pets (2)']
    """
    if len(embeddings) < 2:
        raise ValueError(f"distances need at least two embeddings, got {len(embeddings)}")
    with _progress_bar(len(embeddings) ** 2 * len(embeddings[0])) as progress:
        matrix: Matrix = pdist(embeddings, distance=distance, progress=progress, **options)
    floors = np.full(len(embeddings), np.nan)
    if distance != "asymmetric":
        floors[:] = [_floor(embedding, distance) for embedding in embeddings]
    known = not np.isnan(floors).all()
    return Comparison(embeddings, task_names(embeddings), distance, matrix, floors if known else None)


@contextmanager
def _progress_bar(work: float) -> Iterator[Callable[[int, int], None] | None]:
    """What draws a bar for `pdist`, where the work is long."""
    if work < _LONG:
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("distances")
        yield lambda done, pairs: bar.update(task, completed=done, total=pairs)


def _floor(embedding: Embedding, distance: str) -> float:
    try:
        return float(noise_floor([embedding], distance)[0])
    except ValueError:  # no groups, or too few images in them
        return float("nan")


def task_names(embeddings: Sequence[Embedding]) -> list[str]:
    """A name for each embedding, numbered where two would be the same."""
    names: dict[str, None] = {}
    for embedding in embeddings:
        name = base = (embedding.task_name or "task").encode(errors="replace").decode()  # no lone surrogates
        number = 1
        while name in names:
            number += 1
            name = f"{base} ({number})"
        names[name] = None
    return list(names)
