r"""How good experts are on average, and how hard tasks are, from a table with holes.

.. math:: \min_{a, b} \sum_{(t, j)\ \text{known}} (e_{tj} - a_t - b_j)^2

An expert that was tried on easy tasks only has small errors there, as do all others: a_t takes that out, where a
mean of its errors would flatter it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


def additive_fit(errors: Matrix) -> tuple[Vector, Vector]:
    """Levels of tasks and effects of experts, by least squares.

    Args:
        errors: float64 [L, E], NaN for holes.

    Returns:
        float64 [L] levels a and float64 [E] effects b, which sum to 0; NaN for a task or an expert without results.
        Experts that no chain of common tasks joins cannot be compared; the effects of each joined set sum to 0.

    >>> levels, effects = additive_fit(np.array([[10.0, 20.0, np.nan], [np.nan, 60.0, 70.0]]))
    >>> levels.round(6).tolist(), effects.round(6)[[0, 2]].tolist()
    ([20.0, 60.0], [-10.0, 10.0])
    """
    known = ~np.isnan(errors)
    there, filled = known.astype(float), np.where(known, errors, 0.0)
    per_task = there.sum(1)
    means = filled.sum(1) / np.maximum(per_task, 1)
    # the levels for given effects are means of rows; what is left are E equations
    halves = there / np.sqrt(np.maximum(per_task, 1))[:, None]
    matrix = np.diag(there.sum(0)) - halves.T @ halves
    right = filled.sum(0) - means @ there
    sets = np.eye(len(right))[_joined(known)]
    effects = np.linalg.solve(matrix + sets @ sets.T, right)
    levels = means - there @ effects / np.maximum(per_task, 1)
    levels[per_task == 0] = np.nan
    effects[~known.any(0)] = np.nan
    # adding 0 turns -0 into 0
    return levels + 0.0, effects + 0.0


def _joined(
    known: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The number of the set that each expert belongs to, int64 [E]; sets have no task in common."""
    tasks, experts = known.shape
    rows, columns = known.nonzero()
    graph = csr_array((np.ones(len(rows)), (rows, columns + tasks)), shape=(tasks + experts, tasks + experts))
    return np.unique(connected_components(graph, directed=False)[1][tasks:], return_inverse=True)[1]
