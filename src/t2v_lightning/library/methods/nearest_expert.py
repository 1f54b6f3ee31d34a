"""The expert of the nearest task, by the symmetric or the asymmetric distance."""

from __future__ import annotations

import numpy as np

from t2v_lightning.library.evidence import Evidence, Prediction, Query, Vector


def nearest_expert(evidence: Evidence, query: Query) -> Prediction:
    """Experts by how near the task is that each was trained on; those of unknown training follow, by the static list.

    With the distances of `asymmetric` it is the rule of Achille et al. (*Task2Vec*, ICCV 2019), section 5.

    Raises:
        ValueError: of no expert it is known what it was trained on.

    >>> evidence = Evidence(np.array([[10.0, 30.0], [60.0, 50.0]]), np.arange(2), np.array([-1, -1]))
    >>> nearest_expert(evidence, Query(np.zeros(2), to_experts=np.array([0.9, 0.2]))).effects.argsort()
    array([1, 0])
    """
    distances = query.to_experts
    if distances is None or np.isnan(distances).all():
        raise ValueError(
            "the nearest expert is that of the nearest task, and of none of these experts it is known which task "
            "it was trained on: say so by add_expert(name, task=...), or use another method"
        )
    return Prediction(by_score(distances, evidence), np.zeros(len(evidence)))


def by_score(scores: Vector, evidence: Evidence) -> Vector:
    """Effects in points [E] in the order of scores that have another unit, lowest first.

    The best gets the effect of the best expert on the static list, and so on: a rank is all that such a score gives.
    Experts whose score is NaN come after the others, by their place on the static list.
    """
    effects = evidence.fit[1]
    order = np.lexsort((effects, scores))  # NaN is last in both
    ranked = np.full(len(effects), np.nan)
    known = np.sort(effects)
    ranked[order] = known
    ranked[np.isnan(effects) & np.isnan(scores)] = np.nan
    return ranked
