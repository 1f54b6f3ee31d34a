"""Transferability scores: how well a network's features, or its own classes, suit a labelled dataset.

Every score takes an array [N, ...] that the network computes from N images, and their labels, and gives one number,
which is larger for the network that promises more. Their units differ, so that only values of one score may be
compared, for one dataset.
"""

from t2v_lightning.functional.transferability.class_overlap import gbc
from t2v_lightning.functional.transferability.coding_rate import transrate
from t2v_lightning.functional.transferability.conditional import leep, nce, nleep
from t2v_lightning.functional.transferability.evidence import logme
from t2v_lightning.functional.transferability.head_accuracy import probe_accuracy
from t2v_lightning.functional.transferability.neighbours import knn_accuracy
from t2v_lightning.functional.transferability.rank_agreement import parc
from t2v_lightning.functional.transferability.scatter import h_score

__all__ = [
    "gbc",
    "h_score",
    "knn_accuracy",
    "leep",
    "logme",
    "nce",
    "nleep",
    "parc",
    "probe_accuracy",
    "transrate",
]
