"""How far predictions would move with other tasks in the library, other images of the new task, and other results."""

from __future__ import annotations

import numpy as np

from t2v_lightning.library.evidence import Evidence, Matrix, Vector
from t2v_lightning.library.methods.kernel_average import Kernel

RESAMPLED = 100
"""Tasks of most weight, which are resampled; the others stay, as many tasks of little weight hardly vary together."""


def effects_under_resampling(
    rng: np.random.Generator,
    draws: int,
    evidence: Evidence,
    stderrs: Matrix,
    distances: Vector,
    noise: Matrix | None,
    kernel: Kernel,
) -> Matrix:
    """Samples of the kernel average, float64 [draws, E].

    Tasks are resampled by the Bayesian bootstrap (Rubin, *The Bayesian Bootstrap*, 1981), with weights that are
    exponentially distributed. Distances move as the jackknife over groups of images says, all of them together: the
    variance of its G changes c_g is (G - 1) / G times the sum of their squares, which a normal mixture of them has.
    Results move by their standard errors.

    Args:
        rng: source of the draws.
        draws: how many.
        evidence: L tasks.
        stderrs: [L, E], of the errors; NaN where unknown, which counts as 0.
        distances: [L].
        noise: [G, L], changes of the distances without each group of images; None for none.
        kernel: of the average.
    """
    weights, effects = kernel.weights(distances), evidence.fit[1]
    near = weights.argsort()[::-1][:RESAMPLED]
    moved = np.broadcast_to(distances[near], (draws, len(near)))
    if noise is not None and len(noise) > 1:
        factor = np.sqrt((len(noise) - 1) / len(noise))
        moved = moved + factor * rng.normal(size=(draws, len(noise))) @ noise[:, near]
    drawn = kernel.weights(moved) * rng.exponential(size=moved.shape)
    weights[near], few, values = 0, evidence.known[near], evidence.centred[near]
    total = drawn @ few + weights @ evidence.known + kernel.prior
    sums = drawn @ values + weights @ evidence.centred + kernel.prior * np.nan_to_num(effects)
    squares = drawn**2 @ np.nan_to_num(stderrs[near]) ** 2
    safe = np.where(total > 0, total, 1.0)
    noisy = (sums + np.sqrt(squares) * rng.normal(size=sums.shape)) / safe
    out = np.where(total > 0, noisy, effects)
    out[:, np.isnan(effects)] = np.nan
    return out


def filled(effects: Matrix, rng: np.random.Generator) -> Matrix:
    """Residuals [R, E] with holes filled by residuals of the same expert on other tasks; 0 where it has none."""
    out = effects.copy()
    for j in range(out.shape[1]):
        holes = np.isnan(out[:, j])
        if holes.any():
            known = out[~holes, j]
            out[holes, j] = rng.choice(known, size=int(holes.sum())) if len(known) else 0.0
    return out
