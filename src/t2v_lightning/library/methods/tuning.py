"""Bandwidth, prior weight and mixture of distances of the kernel average, by leave-one-out on the library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.library.additive import additive_fit
from t2v_lightning.library.evidence import Evidence, Matrix
from t2v_lightning.library.leave_one_out import left_out
from t2v_lightning.library.methods.kernel_average import STEEPEST, Kernel

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
BANDWIDTHS = (0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 1.0)
PRIORS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Tuned:
    """What leave-one-out chose.

    Attributes:
        kernel: of distances in units of the median of the library.
        share: of the distance of mean features in the mixture, 0 to 1.
        loss: mean squared error of the centred predictions, in points squared; NaN where nothing could be left out.
    """

    kernel: Kernel
    share: float
    loss: float = float("nan")


def mixed(first: Matrix, second: Matrix | None, share: float) -> Matrix:
    """(1 - share) times one distance plus share times another."""
    return first if second is None else (1 - share) * first + share * second


def tune(
    evidence: Evidence,
    rows: NDArray[np.int64],
    first: Matrix,
    second: Matrix | None,
    by_family: bool = False,
) -> Tuned:
    """The settings of least squared error of the tasks that are left out.

    Args:
        evidence: L tasks.
        rows: int64 [R], the tasks to leave out in turn.
        first: float64 [R, L], their Task2Vec distances, in units of the median.
        second: float64 [R, L], their distances of mean features, likewise; None where unknown.
        by_family: leave out the whole family of each.

    Returns:
        The settings; where nothing can be left out, as with one task or one family, a bandwidth of 0.2 and a prior
        weight of 1.
    """
    shares = SHARES if second is not None else (0.0,)
    mixtures = np.stack([mixed(first, second, share) for share in shares])
    nears = np.array([_nearest(rows, distances) for distances in mixtures])
    place = {row: n for n, row in enumerate(rows.tolist())}
    bandwidths, priors = np.array(BANDWIDTHS)[:, None], np.array(PRIORS)[:, None]
    errors = evidence.others
    losses = np.zeros((len(shares), len(BANDWIDTHS), len(PRIORS)))
    count = 0
    for row, kept, truth in left_out(evidence, rows, by_family):
        levels, effects = additive_fit(errors[kept])
        usable = ~np.isnan(truth) & ~np.isnan(effects)
        if usable.sum() < 2:
            continue
        centred = (errors[kept] - levels[:, None])[:, usable]
        known = ~np.isnan(centred)
        near, distances = nears[:, None, None], mixtures[:, None, place[row], kept]
        weights = np.exp(np.minimum((near - distances) / bandwidths, STEEPEST))  # [shares, bandwidths, tasks]
        total = (weights @ known)[..., None, :] + priors
        sums = (weights @ np.where(known, centred, 0.0))[..., None, :] + priors * effects[usable]
        guess = sums / total
        wrong = guess - guess.mean(-1, keepdims=True) - (truth[usable] - truth[usable].mean())
        losses += (wrong**2).mean(-1)
        count += 1
    if not count:
        return Tuned(Kernel(0.2, 1.0, float(nears[0])), 0.0)
    best = [int(place) for place in np.unravel_index(losses.argmin(), losses.shape)]
    share = shares[best[0]]
    return Tuned(
        Kernel(BANDWIDTHS[best[1]], PRIORS[best[2]], float(nears[best[0]])),
        share,
        float(losses.min() / count),
    )


def _nearest(rows: NDArray[np.int64], distances: Matrix) -> float:
    """Median distance of a task to the nearest other; 0 for one task."""
    others = distances.copy()
    others[np.arange(len(rows)), rows] = np.inf
    nearest = others.min(1, initial=np.inf)
    return float(np.median(nearest)) if len(nearest) and np.isfinite(nearest).all() else 0.0
