"""A small table of results, and residuals of it that are written out."""

import numpy as np

from t2v_lightning.library.evidence import Evidence, Matrix


def table(seed: int, tasks: int = 9, experts: int = 5) -> tuple[Evidence, Matrix, Matrix]:
    """Evidence in three families, and two matrices of distances of points in the plane."""
    rng = np.random.default_rng(seed)
    first, second = (
        np.linalg.norm(points[:, None] - points, axis=2) for points in rng.normal(size=(2, tasks, 2))
    )
    trained_on = np.array([0, 4, -1, -1, 7])[:experts]
    errors = rng.uniform(5, 60, size=(tasks, experts))
    return Evidence(errors, np.arange(tasks) // 3, trained_on), first, second


def residuals_of(evidence: Evidence, j: int, at_home: bool) -> tuple[list[float], float]:
    """Of one expert on all tasks, NaN where they do not count, and its mean beside the levels of the tasks.

    Results in the family that it was trained in count if the new task is of that family. The mean is without those on
    the task that it was trained on.
    """
    own, (levels, effects) = evidence.trained_on[j], evidence.fit
    left = evidence.errors[:, j] - levels
    if at_home or own < 0:
        return (left - effects[j]).tolist(), float(effects[j])
    left[evidence.families == evidence.families[own]] = np.nan
    mean = float(np.nanmean(left))
    return (left - mean).tolist(), mean


def residual_table(evidence: Evidence, family: int | None) -> Matrix:
    """For a task of that family, with deviations of the levels in the last column."""
    columns = []
    for j, own in enumerate(evidence.trained_on):
        at_home = own >= 0 and evidence.families[own] == family
        columns.append(residuals_of(evidence, j, at_home)[0])
    return np.column_stack([*columns, evidence.fit[0] - evidence.fit[0].mean()])


def without_group(evidence: Evidence, values: Matrix, gone: Matrix) -> Matrix:
    """Residuals, and levels in the last column, beside a static list that some tasks have no part in."""
    out = values.copy()
    for j in range(values.shape[1]):
        own = evidence.trained_on[j] if j < len(evidence.trained_on) else -1
        rows = [t for t in range(len(values)) if not np.isnan(values[t, j]) and t != own]
        theirs = [t for t in rows if gone[t]]
        out[:, j] += sum(values[t, j] for t in theirs) / (len(rows) - len(theirs))
    return out
