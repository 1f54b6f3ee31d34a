"""The static list: one order of experts for every task."""

from __future__ import annotations

import numpy as np

from t2v_lightning.library.evidence import Evidence, Prediction, Query


def static_list(evidence: Evidence, query: Query) -> Prediction:
    """Each expert's mean over the tasks, each task's own level taken off first (`additive_fit`).

    Without the tasks of the family that the expert was trained in, as the list is for any task.

    >>> evidence = Evidence(np.array([[10.0, 30.0], [50.0, 60.0]]), np.arange(2), np.array([-1, -1]))
    >>> static_list(evidence, Query(np.zeros(2))).effects
    array([-7.5,  7.5])
    """
    return Prediction(evidence.away, np.zeros(len(evidence)))
