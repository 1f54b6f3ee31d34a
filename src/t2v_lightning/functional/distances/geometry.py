"""Points in space from distances between them."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

_SMALL = 1000
"""Points up to which the threads of LAPACK cost more than they save: beside two busy processes on two CPUs, 232 points
took 1.3 s with two threads and 0.02 s with one."""
_LIMITED = Lock()
"""So that two calls at a time set the number of threads back in the right order."""


def classical_mds(distances: ArrayLike, dimensions: int) -> NDArray[np.float64]:
    """Points whose distances are those of a matrix, as nearly as `dimensions` allow.

    Torgerson, Multidimensional scaling: I. Theory and method, Psychometrika 17 (1952).

    Args:
        distances: [n, n], symmetric, with a zero diagonal.
        dimensions: how many coordinates a point has. Those beyond n are 0, as are those in which the distances are
            not Euclidean.

    Returns:
        float64 [n, dimensions], coordinates of falling importance.

    >>> points = classical_mds([[0, 3, 4], [3, 0, 5], [4, 5, 0]], 2)
    >>> [round(float(np.linalg.norm(points[i] - points[j])), 6) for i, j in ((0, 1), (0, 2), (1, 2))]
    [3.0, 4.0, 5.0]
    """
    squared = np.asarray(distances, np.float64) ** 2
    centred = -0.5 * (squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean())
    with _LIMITED, threadpool_limits(1 if len(centred) <= _SMALL else None, user_api="blas"):
        values, vectors = np.linalg.eigh(centred)
    points = (vectors * np.sqrt(values.clip(0)))[:, ::-1][:, :dimensions]
    return np.pad(points, ((0, 0), (0, dimensions - points.shape[1])))
