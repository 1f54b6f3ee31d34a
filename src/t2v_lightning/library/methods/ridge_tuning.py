r"""Bandwidth, mixture of distances and noises of the regression, by leaving out each task or family of the library.

Bandwidth and mixture are common to all experts. The noise of each is its own, as the results of one may carry over to
similar tasks, or to other families, and those of another not; as few tasks say little about one expert, the loss that
decides is mostly the mean of all experts.

The errors of a group g that is left out are :math:`(G_{gg})^{-1} (G r)_g` with :math:`G = (K + \lambda I)^{-1}`, so
that nothing is fitted again. The static list is made without the group too, else an expert with few results would look
as if it were known well: of n residuals of an expert, m in the group with the mean :math:`\bar r`, all grow by
:math:`m \bar r / (n - m)`. That is exact where the table has no holes. Holes count as results of the static list, and
so do results in the family that an expert was trained in where they do not count. Settings for tasks like those of the
library are chosen as if these counted everywhere.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.library.evidence import Evidence, Mask, Matrix
from t2v_lightning.library.methods.kernel_ridge import Ridge, targets
from t2v_lightning.library.methods.tuning import mixed

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
BANDWIDTHS = (0.3, 0.6, 1.0, 2.0, 4.0)
NOISES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
MOST_EXPERTS = 100
"""Of more experts every so manieth takes part in the choice of what they share."""
POOLED = 0.9
"""Of what the noise of an expert with an average number of results is chosen by, the share of all experts' mean."""

Groups = list[NDArray[np.int64]]


def left_out_errors(evidence: Evidence, between: Matrix, ridge: Ridge, by_family: bool = False) -> Matrix:
    """By how much the regression is wrong about tasks that are left out, float64 [L, E + 1].

    Truth less prediction, for each expert and, in the last column, for the level; NaN where there is no result, and
    for experts that were trained on a task that is left out too, or have no result elsewhere. Nothing is predicted
    where all tasks are one group.

    Args:
        evidence: L tasks.
        between: float64 [L, L], distances among them, mixed already.
        ridge: settings.
        by_family: leave out the whole family of each.
    """
    groups = _groups(evidence, by_family)
    shape = len(evidence), evidence.errors.shape[1] + 1
    if len(groups) < 2:
        return np.full(shape, np.nan)
    spectrum, vectors = np.linalg.eigh(np.exp(-between / ridge.bandwidth))
    noise = np.broadcast_to(ridge.noise, shape[1])

    def wrong(at_home: bool) -> Matrix:
        """For tasks of families that experts are all at home in, or none of them."""
        values = targets(evidence, np.full(shape[1] - 1, at_home))
        shifts = _shifts(evidence, values, by_family)
        found = np.empty(shape)
        for level in np.unique(noise).tolist():
            of = noise == level
            found[:, of] = _wrong(spectrum, vectors, level, values[:, of], shifts[:, of], groups)
        return np.where(_counted(evidence, values, by_family), found, np.nan)

    found = wrong(at_home=False)
    if not by_family and evidence.at_home.any():
        found[:, :-1] = np.where(evidence.at_home, wrong(at_home=True)[:, :-1], found[:, :-1])
    return found


def tune_ridge(evidence: Evidence, first: Matrix, second: Matrix | None, by_family: bool = False) -> Ridge:
    """The settings of least squared error of tasks, or families, that are left out, with a noise for each expert.

    Args:
        evidence: L tasks.
        first: float64 [L, L], Task2Vec distances, in units of their median.
        second: the same of mean features; None where unknown.
        by_family: leave out whole families.
    """
    groups = _groups(evidence, by_family)
    if len(groups) < 2:
        return Ridge()
    values = targets(evidence, np.full(evidence.errors.shape[1], not by_family))
    shifts = _shifts(evidence, values, by_family)
    counted = _counted(evidence, values, by_family) & ~np.isnan(shifts)
    experts = values.shape[1] - 1
    some = np.linspace(0, experts - 1, min(experts, MOST_EXPERTS)).astype(np.int64)

    def losses(distances: Matrix, bandwidth: float, columns: NDArray[np.int64]) -> Matrix:
        """Sums of the squares of what is wrong about each of some experts beside the others, [noises, columns]."""
        spectrum, vectors = np.linalg.eigh(np.exp(-distances / bandwidth))
        there = counted[:, columns]
        found = []
        for noise in NOISES:
            wrong = _wrong(spectrum, vectors, noise, values[:, columns], shifts[:, columns], groups)
            mean = np.where(there, wrong, 0.0).sum(1, keepdims=True) / np.maximum(
                there.sum(1, keepdims=True), 1
            )
            found.append(np.where(there, (wrong - mean) ** 2, 0.0).sum(0))
        return np.array(found)

    best, least = Ridge(), np.inf
    for share, bandwidth in product(SHARES if second is not None else SHARES[:1], BANDWIDTHS):
        loss = losses(mixed(first, second, share), bandwidth, some).sum(1)
        if loss.min() < least:
            best, least = Ridge(bandwidth, NOISES[loss.argmin()], share), loss.min()
    own = losses(mixed(first, second, best.share), best.bandwidth, np.arange(experts))
    pooled = POOLED * own.mean(1, keepdims=True) + (1 - POOLED) * own
    return replace(best, noise=np.append(np.array(NOISES)[pooled.argmin(0)], best.noise))


def _wrong(
    spectrum: Matrix, vectors: Matrix, noise: float, values: Matrix, shifts: Matrix, groups: Groups
) -> Matrix:
    """Truth less prediction of each group when it is left out, [L, columns], from the eigenvectors of the kernel."""
    inverse = (vectors / (spectrum + noise)) @ vectors.T
    known = ~np.isnan(values)
    duals = inverse @ np.where(known, values, 0.0) + shifts * (inverse @ known)
    if len(groups) == len(values):
        return np.asarray(duals / inverse.diagonal()[:, None])
    wrong = np.empty_like(duals)
    for g in groups:
        wrong[g] = np.linalg.solve(inverse[np.ix_(g, g)], duals[g])
    return wrong


def _shifts(evidence: Evidence, values: Matrix, by_family: bool) -> Matrix:
    """By how much residuals grow once the static list is made without a task or its family, [L, E + 1].

    NaN where the expert has no other results.
    """
    families, which = np.unique(_families(evidence, by_family), return_inverse=True)
    members = np.eye(len(families))[which]
    used = np.column_stack([evidence.known, np.ones(len(values))]) * ~np.isnan(values)
    counts, sums = members.T @ used, members.T @ (np.nan_to_num(values) * used)
    others = used.sum(0) - counts
    return np.asarray(np.where(others > 0, sums / np.maximum(others, 1), np.nan)[which])


def _groups(evidence: Evidence, by_family: bool) -> Groups:
    """Tasks that are left out together."""
    families = _families(evidence, by_family)
    return [np.flatnonzero(families == family) for family in np.unique(families)]


def _families(evidence: Evidence, by_family: bool) -> NDArray[np.int64]:
    return evidence.families if by_family else np.arange(len(evidence))


def _counted(evidence: Evidence, values: Matrix, by_family: bool) -> Mask:
    """Which of the targets [L, E + 1] are results of experts that stay when the task is left out, or levels."""
    families, known = _families(evidence, by_family), evidence.trained_on >= 0
    own = np.where(known, families[evidence.trained_on], -1)
    gone = np.column_stack([(families[:, None] == own) & known, np.zeros(len(families), bool)])
    return np.asarray(~np.isnan(values) & ~gone)
