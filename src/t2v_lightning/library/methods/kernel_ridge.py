r"""The library's results, interpolated between tasks: kernel ridge regression around the static list.

With levels a_t and effects b_j of `additive_fit`, residuals :math:`r_{tj} = e_{tj} - a_t - b_j`, the kernel
:math:`k = e^{-d / h}` of distances and noise :math:`\lambda`, the effect of expert j is

.. math:: \hat b_j = b_j + k_{*}^\top (K + \lambda I)^{-1} r_j

over the tasks that j has results for (Saunders, Gammerman and Vovk, *Ridge Regression Learning Algorithm in Dual
Variables*, 1998); it is also the mean of a Gaussian process. A kernel average counts ten labellings of the same images
as ten tasks; here they share one vote. Far from all tasks the advice turns into the static list.

An expert's error on the task that it was trained on counts here, if it was measured on images that it has not seen: the
neighbours of that task profit from the expert too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from t2v_lightning.library.additive import additive_fit
from t2v_lightning.library.evidence import Evidence, Mask, Matrix, Prediction, Vector
from t2v_lightning.library.methods.tuning import mixed

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
BANDWIDTHS = (0.3, 0.6, 1.0, 2.0, 4.0)
NOISES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
MOST = 300
"""The nearest tasks, which are interpolated between. Each pattern of holes takes a system of so many equations."""


@dataclass(frozen=True)
class Ridge:
    """Settings of the regression.

    Attributes:
        bandwidth: h, in units of the distances.
        noise: lambda, in units of the variance of the residuals.
        share: of the distance of mean features in the mixture, 0 to 1.
    """

    bandwidth: float = 1.0
    noise: float = 0.5
    share: float = 0.0


def kernel_ridge(evidence: Evidence, distances: Vector, between: Matrix, ridge: Ridge) -> Prediction:
    """The regression, for one task.

    Args:
        evidence: L tasks.
        distances: float64 [L], from the new task, mixed already.
        between: float64 [L, L], between the library's tasks, likewise.
        ridge: settings.

    >>> evidence = Evidence(np.array([[10.0, 30.0], [60.0, 50.0]]), np.arange(2), np.array([-1, -1]))
    >>> between = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> kernel_ridge(evidence, np.array([0.1, 0.9]), between, Ridge(1.0, 0.1)).effects.round(2)
    array([-7.6,  7.6])
    """
    levels, effects = additive_fit(evidence.errors)
    near = np.sort(distances.argsort(kind="stable")[:MOST])
    residuals = (evidence.errors - levels[:, None] - effects)[near]
    known = ~np.isnan(residuals)
    kernel = np.exp(-between[np.ix_(near, near)] / ridge.bandwidth) + ridge.noise * np.eye(len(near))
    to_task = np.exp(-distances[near] / ridge.bandwidth)
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    predicted, weights = effects.copy(), np.zeros(len(evidence))
    for number, there in enumerate(patterns.T):
        experts = which.ravel() == number
        shares = np.linalg.solve(kernel[np.ix_(there, there)], to_task[there])
        predicted[experts] += shares @ residuals[np.ix_(there, experts)]
        weights[near[there]] += shares.clip(0) * experts.mean()
    return Prediction(predicted, weights / max(1.0, float(weights.sum())))


def tune_ridge(evidence: Evidence, first: Matrix, second: Matrix | None, by_family: bool = False) -> Ridge:
    r"""The settings of least squared error of tasks, or families, that are left out.

    Leaving out a group g changes its predictions by :math:`(G_{gg})^{-1} (G r)_g` with :math:`G = (K + \lambda
    I)^{-1}`, so that nothing is fitted again. Holes count as results of the static list.

    Args:
        evidence: L tasks.
        first: float64 [L, L], Task2Vec distances, in units of their median.
        second: the same of mean features; None where unknown.
        by_family: leave out whole families.
    """
    levels, effects = additive_fit(evidence.errors)
    residuals = evidence.errors - levels[:, None] - effects
    families = evidence.families if by_family else np.arange(len(evidence))
    groups = [np.flatnonzero(families == family) for family in np.unique(families)]
    if len(groups) < 2:
        return Ridge()
    counted = ~np.isnan(residuals) & ~_of_left_out(evidence, families)
    filled = np.nan_to_num(residuals)
    best, least = Ridge(), np.inf
    shares = SHARES if second is not None else SHARES[:1]
    for share, bandwidth in product(shares, BANDWIDTHS):
        values, vectors = np.linalg.eigh(np.exp(-mixed(first, second, share) / bandwidth))
        for noise in NOISES:
            inverse = (vectors / (values + noise)) @ vectors.T
            alpha = inverse @ filled
            if len(groups) == len(evidence):
                wrong = alpha / inverse.diagonal()[:, None]
            else:
                parts = [np.linalg.solve(inverse[np.ix_(g, g)], alpha[g]) for g in groups]
                wrong = np.concatenate(parts)[np.argsort(np.concatenate(groups))]
            wrong = np.where(counted, wrong, np.nan)
            loss = float(np.nanmean((wrong - _row_means(wrong)) ** 2))
            if loss < least:
                best, least = Ridge(bandwidth, noise, share), loss
    return best


def _of_left_out(evidence: Evidence, families: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Mask:
    """Cells [L, E] of experts that were trained on a task of the same group: with it they are left out too."""
    known = evidence.trained_on >= 0
    own = np.where(known, families[evidence.trained_on], -1)
    return np.asarray((families[:, None] == own) & known)


def _row_means(values: Matrix) -> Matrix:
    there = ~np.isnan(values)
    return np.asarray(np.nansum(values, 1, keepdims=True) / np.maximum(there.sum(1, keepdims=True), 1))
