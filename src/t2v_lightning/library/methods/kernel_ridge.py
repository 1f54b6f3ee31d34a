r"""The library's results, interpolated between tasks: kernel ridge regression around the static list.

With levels a_t and effects b_j of `additive_fit`, residuals :math:`r_{tj} = e_{tj} - a_t - b_j`, the kernel
:math:`k = e^{-d / h}` of distances and noise :math:`\lambda`, the effect of expert j is

.. math:: \hat b_j = b_j + k_{*}^\top (K + \lambda I)^{-1} r_j

over the tasks that j has results for, with a noise of its own for each expert (Saunders, Gammerman and Vovk, *Ridge
Regression Learning Algorithm in Dual Variables*, 1998); it is also the mean of a Gaussian process. The level of the new
task is predicted likewise, from :math:`a_t - \bar a`. A kernel average counts ten labellings of the same images as ten
tasks; here they share one vote. Far from all tasks the advice turns into the static list.

What an expert does in the family that it was trained in tells little of what it does elsewhere. So it counts for tasks
of that family alone; for others r_j and b_j are of the other results. In the family the error on the very task that it
was trained on counts too, if it was measured on images that it has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.library.evidence import Evidence, Mask, Matrix, Prediction, Vector

MOST = 100
"""The nearest tasks, which are interpolated between; for each pattern of holes and noise by a system of equations."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """Settings of the regression.

    Attributes:
        bandwidth: h, in units of the distances.
        noise: lambda, in units of the variance of the residuals; one, or [E + 1], for each expert and the level.
        share: of the distance of mean features in the mixture, 0 to 1.
    """

    bandwidth: float = 1.0
    noise: float | Vector = 0.5
    share: float = 0.0


@dataclass(frozen=True)
class Regression:
    """The regression at one task, for E experts and, in the last column, the level.

    Attributes:
        near: int64 [n], the tasks that it rests on.
        effects: float64 [E], of the experts.
        level: of the task, in percent.
        slopes: float64 [n], change of each kernel value with the distance.
        shares: float64 [n, E + 1], by which each residual counts; 0 where there is none.
        duals: float64 [n, E + 1], by which each kernel value counts.
        misfits: float64 [n, E + 1], residuals less their fitted values.
        weights: float64 [n], how much each task counts on average over the experts.
    """

    near: NDArray[np.int64]
    effects: Vector
    level: float
    slopes: Vector
    shares: Matrix
    duals: Matrix
    misfits: Matrix
    weights: Vector


def at_home_in(evidence: Evidence, family: int | None) -> Mask:
    """Which experts [E] were trained in a family, a number as in the evidence, and have results there and elsewhere."""
    if family is None:
        return np.zeros(len(evidence.homes), bool)
    return np.asarray((evidence.homes == family) & evidence.at_home.any(0))


def static_effects(evidence: Evidence, home: Mask) -> Vector:
    """Effects b of the experts [E], for a task of the family of those that are at `home` [E]."""
    return np.where(home, evidence.fit[1], evidence.away)


def targets(evidence: Evidence, home: Mask, rows: NDArray[np.int64] | slice = slice(None)) -> Matrix:
    """Residuals r of some tasks with the deviations of their levels as last column, float64 [rows, E + 1].

    NaN for results that do not count for a task of the family of the experts that are at `home` [E].
    """
    levels = evidence.fit[0]
    residuals = evidence.errors[rows] - levels[rows, None] - static_effects(evidence, home)
    residuals[evidence.at_home[rows] & ~home] = np.nan
    return np.column_stack([residuals, levels[rows] - np.nanmean(levels)])


def nearest_tasks(distances: Vector) -> NDArray[np.int64]:
    """Positions of the nearest tasks, `MOST` at most, in order."""
    return np.sort(distances.argsort(kind="stable")[:MOST])


def regress(
    evidence: Evidence,
    near: NDArray[np.int64],
    distances: Vector,
    between: Matrix,
    ridge: Ridge,
    family: int | None = None,
) -> Regression:
    """The regression on some tasks.

    Args:
        evidence: L tasks.
        near: int64 [n], those that count.
        distances: float64 [n], from the new task to them, mixed already.
        between: float64 [n, n], among them, likewise.
        ridge: settings.
        family: of the new task, a number as in the evidence; None for one that it does not have.
    """
    home = at_home_in(evidence, family)
    values = targets(evidence, home, near)
    known = ~np.isnan(values)
    noise = np.broadcast_to(ridge.noise, values.shape[1])
    kernel = np.exp(-between / ridge.bandwidth)
    to_task = np.exp(-distances / ridge.bandwidth)
    shares, duals = np.zeros((2, *values.shape))
    alike, which = np.unique(np.vstack([noise, known]), axis=1, return_inverse=True)
    for number, (level, *pattern) in enumerate(alike.T):
        columns, there = np.flatnonzero(which.ravel() == number), np.array(pattern, bool)
        solved = np.linalg.solve(
            kernel[np.ix_(there, there)] + level * np.eye(there.sum()),
            np.column_stack([to_task[there], values[np.ix_(there, columns)]]),
        )
        shares[np.ix_(there, columns)], duals[np.ix_(there, columns)] = solved[:, :1], solved[:, 1:]
    changes = to_task @ duals
    weights = shares[:, :-1].clip(0).mean(1)
    return Regression(
        near,
        static_effects(evidence, home) + changes[:-1],
        float(np.nanmean(evidence.fit[0]) + changes[-1]),
        -to_task / ridge.bandwidth,
        shares,
        duals,
        noise * duals,
        weights / max(1.0, float(weights.sum())),
    )


def kernel_ridge(
    evidence: Evidence, distances: Vector, between: Matrix, ridge: Ridge, family: int | None = None
) -> Prediction:
    """The regression on the nearest tasks, for one task.

    Args:
        evidence: L tasks.
        distances: float64 [L], from the new task, mixed already.
        between: float64 [L, L], between the library's tasks, likewise.
        ridge: settings.
        family: of the new task, a number as in the evidence; None for one that it does not have.

    >>> evidence = Evidence(np.array([[10.0, 30.0], [60.0, 50.0]]), np.arange(2), np.array([-1, -1]))
    >>> between = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> kernel_ridge(evidence, np.array([0.1, 0.9]), between, Ridge(1.0, 0.1)).effects.round(2)
    array([-7.6,  7.6])
    """
    near = nearest_tasks(distances)
    found = regress(evidence, near, distances[near], between[np.ix_(near, near)], ridge, family)
    weights = np.zeros(len(evidence))
    weights[near] = found.weights
    return Prediction(found.effects, weights)
