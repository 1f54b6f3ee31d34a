"""How far predictions would move with other tasks in the library, other images of the new task, and other results."""

from __future__ import annotations

import numpy as np

from t2v_lightning.library.evidence import Matrix
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


def filled(effects: Matrix, rng: np.random.Generator) -> Matrix:
    """Residuals [R, E] with holes filled by residuals of the same expert on other tasks; where it has none, of any."""
    out, every = effects.copy(), effects[~np.isnan(effects)]
    for j in range(out.shape[1]):
        holes = np.isnan(out[:, j])
        if holes.any():
            own = out[~holes, j]
            out[holes, j] = rng.choice(own if len(own) else every, size=int(holes.sum()))
    return out
