"""Asking the library about its own tasks, each left out in turn: alone, or with its whole family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.library.evidence import Evidence, Mask, Matrix, Prediction, Query, Vector

Method = Callable[[Evidence, Query], Prediction]


def left_out(
    evidence: Evidence, rows: NDArray[np.int64], by_family: bool
) -> Iterator[tuple[int, Mask, Vector]]:
    """For each of some tasks its row, which tasks stay [L], and its errors [E], centred, NaN where there is none.

    Experts that were trained on a task that is left out do not count. Rows that leave no task, or have fewer than two
    results although there are several experts, are passed over.
    """
    errors, families = evidence.others, evidence.families
    for row in rows.tolist():
        kept = families != families[row] if by_family else np.arange(len(evidence)) != row
        theirs = np.isin(evidence.trained_on, (~kept).nonzero()[0])
        truth = np.where(theirs, np.nan, errors[row])
        if kept.any() and (~np.isnan(truth)).sum() >= min(2, len(truth)):
            yield row, kept, truth - np.nanmean(truth)


@dataclass(frozen=True)
class Residuals:
    """What was predicted for R tasks that were left out, and by how much it was wrong.

    Attributes:
        rows: int64 [R], the tasks.
        effects: float64 [R, E], centred errors less the centred prediction; NaN where there is no result.
        predicted: float64 [R, E], the centred prediction.
    """

    rows: NDArray[np.int64]
    effects: Matrix
    predicted: Matrix

    @property
    def regrets(self) -> Vector:
        """Points of error [R] by which the expert that was predicted best is worse than the best that has a result."""
        known = ~np.isnan(self.effects) & ~np.isnan(self.predicted)
        chosen = np.where(known, self.predicted, np.inf).argmin(1)
        truth = np.where(known, self.predicted + np.nan_to_num(self.effects), np.inf)
        return np.asarray(truth[np.arange(len(truth)), chosen] - truth.min(1))


def residuals(
    method: Method,
    evidence: Evidence,
    queries: Callable[[int], Query],
    rows: NDArray[np.int64],
    by_family: bool,
) -> Residuals:
    """Leave-one-out residuals of a method.

    Args:
        method: predicts from the tasks that stay.
        evidence: all tasks.
        queries: the query that a task makes, with its distances to all tasks [L].
        rows: int64, the tasks to leave out.
        by_family: leave out the whole family of each.
    """
    found, wrong, predicted = [], [], []
    for row, kept, truth in left_out(evidence, rows, by_family):
        query = queries(row)
        prediction = method(evidence.only(kept), replace(query, distances=query.distances[kept])).effects
        known = ~np.isnan(truth) & ~np.isnan(prediction)
        if known.sum() < min(2, len(known)):
            continue
        centred = prediction - prediction[known].mean()
        found.append(row)
        wrong.append(np.where(known, truth - truth[known].mean() - centred, np.nan))
        predicted.append(centred)
    empty = np.empty((0, evidence.errors.shape[1]))
    return Residuals(np.array(found, np.int64), np.array(wrong or empty), np.array(predicted or empty))
