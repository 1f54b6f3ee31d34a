"""Distances from a task to those of a library, of which there may be ten thousand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.distances import DISTANCES, cdist, noise_floor
from t2v_lightning.functional.distances.formulas import Rows
from t2v_lightning.functional.distances.tiles import fill_distances
from t2v_lightning.library.evidence import Matrix


@dataclass(frozen=True)
class Neighbour:
    """A task of the library near to another.

    Attributes:
        name: of the task.
        family: of the task; empty where unknown.
        distance: to the other.
        stderr: standard error of the distance; NaN where one of the two carries no sums over groups of images.
        below_noise_floor: whether the distance is less than that of two halves of one task, so that it means little;
            None where that is not known.
    """

    name: str
    family: str
    distance: float
    stderr: float
    below_noise_floor: bool | None


def describe_neighbour(
    name: str, family: str, far: float, embedding: Embedding, other: Embedding, distance: str
) -> Neighbour:
    """A neighbour with the uncertainty of its distance."""
    stderr = float("nan")
    if embedding.group_sums is not None and other.group_sums is not None:
        stderr = float(cdist([embedding], [other], distance, return_stderr=True)[1][0, 0])
    floors = [floor for one in (embedding, other) if (floor := _floor(one, distance)) is not None]
    return Neighbour(name, family, far, stderr, far < max(floors) if floors else None)


def _floor(embedding: Embedding, distance: str) -> float | None:
    """The noise floor of a task; None where it is not known."""
    try:
        return float(noise_floor([embedding], distance)[0])
    except ValueError:
        return None


def task2vec_distances(
    a: NDArray[np.float32], b: NDArray[np.float32] | None, distance: str = "cosine"
) -> Matrix:
    """Distances from rows [m, D] to rows [n, D] in float32, or among the former: float64 [m, n].

    Raises:
        ValueError: an unknown distance, or one that needs more than Fisher entries in float32.
    """
    if distance not in ("cosine", "cosine_unit"):
        raise ValueError(
            f"the distance of a library is {distance!r}; allowed are cosine and cosine_unit, which need no variances"
        )
    out = np.empty((len(a), len(a if b is None else b)))
    one = np.ones((1, a.shape[1]))
    left, right = (None if part is None else Rows(part, np.broadcast_to(one, part.shape)) for part in (a, b))
    assert left is not None
    fill_distances(out, replace(DISTANCES[distance], prepare=None), left, right, lambda _: None)
    return out


def feature_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> Matrix:
    """One minus the cosine of mean features, rows [m, P] to rows [n, P]: float64 [m, n].

    >>> x = np.array([[1.0, 0.0]], np.float32)
    >>> feature_distances(x, np.array([[2.0, 0.0], [0.0, 1.0]], np.float32)).tolist()
    [[0.0, 1.0]]
    """
    left, right = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in (a, b))
    return np.asarray(1 - left @ right.T, np.float64).clip(min=0)


def typical(distances: Matrix) -> float:
    """Median distance of different tasks, from all distances among them [L, L]; 1 where there is none above 0."""
    others = distances[~np.eye(len(distances), dtype=bool)]
    median = float(np.median(others)) if others.size else 1.0
    return median if median > 0 else 1.0
