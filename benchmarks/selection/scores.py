"""Transferability scores of every expert on a draw: each runs the expert on the new task's images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from selection.experts import FIXED, Setting, load_expert, task_labels
from selection.image_set import Labels
from selection.tasks import draw, save
from selection.truth import PENALTY, positions_in_used
from t2v_lightning.functional import transferability

SCORES = (
    "logme",
    "h_score",
    "leep",
    "nce",
    "nleep",
    "transrate",
    "gbc",
    "parc",
    "knn_accuracy",
    "probe",
)


def scores_of(features: NDArray[np.float64], logits: NDArray[np.float64], labels: Labels) -> list[float]:
    """Every score of `SCORES`, for features [N, P], the expert's own logits [N, C] and labels [N]."""
    # all scores but one depend on inner products alone, so that N coordinates do in place of P
    turned = np.linalg.qr(features.T, mode="r").T if features.shape[0] < features.shape[1] else features
    return [
        transferability.logme(turned, labels),
        transferability.h_score(features, labels),  # shrinks by P
        transferability.leep(softmax(logits, axis=1), labels),
        transferability.nce(logits.argmax(1), labels),
        transferability.nleep(turned, labels),
        transferability.transrate(turned, labels),
        transferability.gbc(turned, labels),
        transferability.parc(turned, labels),
        transferability.knn_accuracy(turned, labels),
        transferability.probe_accuracy(turned, labels, penalty=PENALTY),
    ]


def measure_scores(setting: Setting, name: str, seed: int, draws: Sequence[int]) -> None:
    """Stores the scores of an expert on every task, float64 [scores], a file for each draw."""
    seed = 0 if name in FIXED else seed
    wanted = [number for number in draws if not setting.path(_name(name, seed, number)).exists()]
    if not wanted:
        return
    outputs = load_expert(setting, name, seed)
    for number in wanted:
        found = {}
        for task, (source, _, labels) in task_labels(setting).items():
            images = setting.pixels(source)
            chosen = draw(task, labels, images.side, number)
            rows = positions_in_used(images)[chosen]
            features, logits = (array[rows].astype(np.float64) for array in outputs[source])
            found[task] = np.array(scores_of(features, logits, labels[chosen]))
        save(setting.path(_name(name, seed, number)), **found)


def load_scores(setting: Setting, names: list[str], seed: int, number: int) -> NDArray[np.float64]:
    """[tasks, experts, scores] of a draw."""
    columns = []
    for name in names:
        with np.load(setting.path(_name(name, 0 if name in FIXED else seed, number))) as file:
            columns.append(np.stack([file[task] for task in task_labels(setting)]))
    return np.stack(columns, axis=1)


def _name(name: str, seed: int, number: int) -> str:
    return f"scores_{name}_{seed}_{number}.npz"
