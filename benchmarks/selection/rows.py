"""Every recommendation of the table: a function from a question to predicted errors of the candidates, lowest best.

Only their order counts. `passes` says how many experts have to be run on the images of the new task.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from selection.experts import DEFAULT
from selection.replicate import Held, Matrix, Question
from t2v_lightning.functional.distances import cdist
from t2v_lightning.library.methods import (
    expert_embedding,
    kernel_average,
    kernel_ridge,
    nearest_expert,
    static_list,
    tune_ridge,
    with_scores,
)
from t2v_lightning.library.methods.tuning import mixed, tune

Vector = NDArray[np.float64]
SHORT_LIST = 8
PROBE_WEIGHT = 0.5


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        title: of the line.
        predict: Question and how the library is held out -> predictions [E'].
        passes: experts that are run on the new task; None for all.
    """

    title: str
    predict: Callable[[Question, Held], Vector]
    passes: int | None = 0


def remembered(question: Question, held: Held, name: str, predict: Callable[..., Vector]) -> Vector:
    """A prediction that several rows rest on, made once."""
    key, memory = (name, question.row, held), question.replicate.memory
    if key not in memory:
        memory[key] = predict(question, held)
    return memory[key]


def chance(question: Question, held: Held) -> Vector:
    """All alike."""
    return np.zeros(len(question.candidates))


def always(question: Question, held: Held) -> Vector:
    """The usual default, whatever the task."""
    names = [question.replicate.experts[j] for j in question.candidates]
    return np.array([float(name != DEFAULT) for name in names])


def static(question: Question, held: Held) -> Vector:
    return static_list(question.evidence, question.query("cosine")).effects


def nearest(question: Question, held: Held, distance: str) -> Vector:
    return nearest_expert(question.evidence, question.query(distance)).effects


def asymmetric(question: Question, held: Held) -> Vector:
    """By d(source -> task), where the task of least Fisher information takes the place of the trivial one."""
    r = question.replicate
    known = question.trained_on >= 0
    to_experts = np.full(len(known), np.nan)
    easiest = r.fisher[question.library][np.linalg.norm(r.fisher[question.library], axis=1).argmin()]
    sources = r.fisher[question.trained_on[known]].astype(float)
    target = r.fisher[question.row][None].astype(float)
    to_experts[known] = cdist(sources, target, "asymmetric", trivial=easiest.astype(float))[:, 0]
    query = replace(question.query("cosine"), to_experts=to_experts)
    return nearest_expert(question.evidence, query).effects


def model2vec(question: Question, held: Held) -> Vector:
    return expert_embedding(question.evidence, question.query("cosine")).effects


def kernel(question: Question, held: Held, first: str, second: str | None = None) -> Vector:
    """Bandwidth, prior weight and mixture by leaving out each of the library's tasks, or their families, in turn."""
    evidence, rows = question.evidence, np.arange(len(question.library))
    between = None if second is None else question.between(second)
    tuned = tune(evidence, rows, question.between(first), between, held == "family")
    query = question.query(first)
    other: Matrix | None = None if second is None else question.query(second).distances
    distances = mixed(query.distances, other, tuned.share)
    return kernel_average(evidence, replace(query, distances=distances), tuned.kernel).effects


def ridge(question: Question, held: Held, first: str, second: str | None = None) -> Vector:
    """Bandwidth, noise and mixture likewise; the family is known to be that of the nearest task, or to be new."""
    between, other = question.between(first), None if second is None else question.between(second)
    tuned = tune_ridge(question.evidence, between, other, held == "family")
    if other is not None and second is not None:
        between = mixed(between, other, tuned.share)
        distances = mixed(question.query(first).distances, question.query(second).distances, tuned.share)
    else:
        distances = question.query(first).distances
    family = None if held == "family" else int(question.evidence.families[distances.argmin()])
    return kernel_ridge(question.evidence, distances, between, tuned, family).effects


def scored(question: Question, held: Held, score: str) -> Vector:
    return -question.score(score)


def combined(question: Question, held: Held, predict: Callable[..., Vector], score: str) -> Vector:
    """z-scores added."""
    return with_scores(predict(question, held), question.score(score))


def with_probe(
    question: Question, held: Held, predict: Callable[..., Vector], short: int | None = None
) -> Vector:
    """Predicted points plus half of the cross-validated error in points.

    With `short` only that many experts, the best predicted, are run on the new task; the others stay behind them.
    """
    predicted = predict(question, held)
    together: Vector = predicted - PROBE_WEIGHT * 100 * question.score("probe")
    if short is not None:
        rest = predicted.argsort(kind="stable")[short:]
        together[rest] = together.max() + 1 + predicted[rest] - predicted[rest].min(initial=np.inf)
    return together


mixture = partial(remembered, name="kernel", predict=partial(kernel, first="cosine", second="features"))
interpolated = partial(remembered, name="ridge", predict=partial(ridge, first="cosine", second="features"))

FREE: tuple[Row, ...] = (
    Row("chance", chance),
    Row("ImageNet always", always),
    Row("static list", static),
    Row("nearest expert, Task2Vec", partial(nearest, distance="cosine")),
    Row("nearest expert, mean features", partial(nearest, distance="features")),
    Row("nearest expert, asymmetric Task2Vec", asymmetric),
    Row("kernel average, Task2Vec `cosine`", partial(kernel, first="cosine")),
    Row("kernel average, Task2Vec `cosine_unit`", partial(kernel, first="cosine_unit")),
    Row("kernel average, mean features", partial(kernel, first="features")),
    Row("kernel average, mixture", mixture),
    Row("kernel ridge, Task2Vec `cosine`", partial(ridge, first="cosine")),
    Row("kernel ridge, mean features", partial(ridge, first="features")),
    Row("kernel ridge, mixture", interpolated),
)
MODEL2VEC = Row("MODEL2VEC", model2vec)

_SCORE_TITLES: Mapping[str, str] = {
    "logme": "LogME",
    "h_score": "H-score",
    "leep": "LEEP",
    "nce": "NCE",
    "nleep": "NLEEP",
    "transrate": "TransRate",
    "gbc": "GBC",
    "parc": "PARC",
    "knn_accuracy": "k-NN",
    "probe": "cross-validated probe",
}
RUNNING: tuple[Row, ...] = (
    *(Row(title, partial(scored, score=name), None) for name, title in _SCORE_TITLES.items()),
    Row("static list + probe", partial(combined, predict=static, score="probe"), None),
    Row("kernel average + probe", partial(combined, predict=mixture, score="probe"), None),
    Row("kernel average + LogME", partial(combined, predict=mixture, score="logme"), None),
    Row("kernel ridge + probe, z-scores", partial(combined, predict=interpolated, score="probe"), None),
    Row("kernel ridge + probe, points", partial(with_probe, predict=interpolated), None),
    Row(
        f"kernel ridge, best {SHORT_LIST} probed",
        partial(with_probe, predict=interpolated, short=SHORT_LIST),
        SHORT_LIST,
    ),
    Row(
        f"static list, best {SHORT_LIST} probed",
        partial(with_probe, predict=static, short=SHORT_LIST),
        SHORT_LIST,
    ),
)
