"""How far predictions would move with other tasks in the library, other images of the new task, and other results."""

from __future__ import annotations

import numpy as np

from t2v_lightning.library.evidence import Mask, Matrix
from t2v_lightning.library.methods.kernel_ridge import Regression


def moves(
    rng: np.random.Generator, draws: int, found: Regression, stderrs: Matrix, changes: Matrix | None
) -> Matrix:
    """Samples of how predictions and, in the last column, the level would move, float64 [draws, E + 1].

    Tasks are resampled by the Bayesian bootstrap (Rubin, *The Bayesian Bootstrap*, 1981), with weights w that are
    exponentially distributed: to first order a prediction moves by the sum of w - 1 times share times misfit. Distances
    move as the jackknife over groups of images says, all of them together: the variance of its G changes c_g is
    (G - 1) / G times the sum of their squares, which a normal mixture of them has. Results move by their standard
    errors.

    Args:
        rng: source of the draws.
        draws: how many.
        found: rests on n tasks.
        stderrs: [n, E], of the errors; NaN where unknown, which counts as 0.
        changes: [G, n], of the distances without each group of images; None for none.
    """
    weights = rng.exponential(size=(draws, len(found.near)))
    out = (weights - 1) @ (found.shares * found.misfits)
    if changes is not None and len(changes) > 1:
        factor = np.sqrt((len(changes) - 1) / len(changes))
        out += factor * rng.normal(size=(draws, len(changes))) @ (changes * found.slopes) @ found.duals
    spread = np.sqrt((found.shares[:, :-1] ** 2 * np.nan_to_num(stderrs) ** 2).sum(0))
    out[:, :-1] += spread * rng.normal(size=(draws, len(spread)))
    return out


def residuals_like(left: Matrix, at_home: Mask, home: Mask, rng: np.random.Generator) -> Matrix:
    """Residuals as they may be for a new task, one row for each task that was left out, float64 [R, E].

    For an expert that was trained in the family of the new task they are residuals of experts at home in the task that
    was left out, as predictions for those are less sure; for others of the same expert away from home. Holes are filled
    from other tasks; where an expert has no residuals, from any.

    Args:
        left: float64 [R, E], residuals of tasks that were left out; NaN for holes.
        at_home: bool [R, E], which of them are of experts that were trained in the family of the task.
        home: bool [E], experts that were trained in the family of the new task.
        rng: source of the draws.
    """
    known = ~np.isnan(left)
    out, every = np.where(at_home, np.nan, left), left[known]
    for j in range(out.shape[1]):
        holes = np.isnan(out[:, j])
        if holes.any():
            own = out[~holes, j]
            out[holes, j] = rng.choice(own if len(own) else every, size=int(holes.sum()))
    there = known & at_home
    if home.any() and there.any():
        hosts = np.flatnonzero(there.any(1))
        for row in range(len(out)):
            host = row if there[row].any() else rng.choice(hosts)
            out[row, home] = rng.choice(left[host, there[host]], size=int(home.sum()))
    return out
