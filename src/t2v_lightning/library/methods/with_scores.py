"""A prediction and a transferability score of some of the experts, put together."""

from __future__ import annotations

import numpy as np

from t2v_lightning.library.evidence import Vector


def with_scores(predicted: Vector, scores: Vector, weight: float = 1.0) -> Vector:
    r"""Predictions of the experts that have a score, in the order of the sum of both as z-scores.

    Over the experts that have a score, with mean :math:`\mu` and deviation :math:`\sigma` of what was predicted,

    .. math:: \mu + \sigma \, \frac{z(\text{predicted}) - w \, z(\text{score})}{1 + w}

    so that the mean stays, and others keep their predictions.

    Args:
        predicted: float64 [E], errors in points.
        scores: float64 [E], larger for the better expert; NaN where there is none. One score for all.
        weight: w, of the score.

    >>> with_scores(np.array([10.0, 12.0, 20.0]), np.array([0.5, 0.9, np.nan])).tolist()
    [11.0, 11.0, 20.0]
    """
    known = ~np.isnan(scores) & ~np.isnan(predicted)
    out = predicted.copy()
    if known.sum() < 2:
        return out
    p = predicted[known]
    together = (_z(p) - weight * _z(scores[known])) / (1 + weight)
    spread = p.std() or 1.0  # equal predictions leave the order to the scores
    out[known] = p.mean() + spread * together
    return out


def _z(values: Vector) -> Vector:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 0 else np.zeros_like(values)
