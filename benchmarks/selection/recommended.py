"""`TaskLibrary.recommend` as users call it: what it costs to follow, and whether its intervals hold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.experts import DEFAULT, RANDOM
from selection.replicate import Held, Question, Replicate, questions
from selection.tasks import SHOTS
from selection.verdict import regret
from t2v_lightning.library import Protocol, TaskLibrary

PROTOCOL = Protocol("probe", images=SHOTS)
_NAMES = {
    DEFAULT: "efficientnet_lite0",
    "lite1": "efficientnet_lite1",
    "lite2": "efficientnet_lite2",
    RANDOM: "efficientnet_lite0 with random late stages",
}


def library_of(question: Question) -> TaskLibrary:
    """A library in memory of what the question may know."""
    r, library = question.replicate, TaskLibrary()
    for row in question.library.tolist():
        library.add(r.embeddings[row], name=r.tasks[row], family=r.families[row])
    for j in question.candidates.tolist():
        library.add_expert(r.experts[j], r.experts[j] if r.experts[j] in r.tasks else "")
        for row in question.library.tolist():
            error, stderr = float(r.errors[row, j]), float(r.stderrs[row, j])
            library.add_result(r.tasks[row], r.experts[j], error, stderr, PROTOCOL)
    return library


def whole_library(replicate: Replicate) -> TaskLibrary:
    """All tasks and experts of a replicate, under names that say what the experts are."""
    library = TaskLibrary()
    for row, task in enumerate(replicate.tasks):
        library.add(replicate.embeddings[row], name=task, family=replicate.families[row])
    for j, expert in enumerate(replicate.experts):
        task = expert if expert in replicate.tasks else ""
        name = _NAMES.get(expert, f"efficientnet_lite0 fine-tuned on {expert}")
        library.add_expert(name, task)
        for row, of in enumerate(replicate.tasks):
            error, stderr = float(replicate.errors[row, j]), float(replicate.stderrs[row, j])
            library.add_result(of, name, error, stderr, PROTOCOL)
    return library


@dataclass(frozen=True)
class Followed:
    """Of R recommendations.

    Attributes:
        regrets: float64 [R], of the first expert.
        covered: [R], share of experts whose error lies in its interval.
        regret_covered: [R], 1 where the regret of the first expert lies in its interval.
        worse_than_said: [R], 1 where the first is worse than ImageNet's by more than it said it might lose.
        far: [R], 1 where it said that nothing is near.
    """

    regrets: NDArray[np.float64]
    covered: NDArray[np.float64]
    regret_covered: NDArray[np.float64]
    worse_than_said: NDArray[np.float64]
    far: NDArray[np.float64]


def follow(replicate: Replicate, held: Held, tasks: Sequence[int], runs: Sequence[int]) -> list[Followed]:
    """Asks the library about some tasks (positions); for each of `runs`, so many experts are tried on each task."""
    every = list(questions(replicate, held))
    rows = [_judged(every[task], runs) for task in tasks]
    replicate.tried.save()
    return [Followed(*np.array(of_run).T) for of_run in zip(*rows, strict=True)]


def _judged(question: Question, runs: Sequence[int]) -> list[tuple[float, ...]]:
    r, embedding = question.replicate, question.replicate.embeddings[question.row]
    names = [r.experts[j] for j in question.candidates]
    desk = library_of(question).desk()
    order = list(desk.worth_trying(embedding, "library", names, 0))
    rows = []
    for run in runs:
        tried = {name: r.tried.error(r.tasks[question.row], name) for name in order[:run]}
        found = desk.recommend(embedding, "library", len(names), names, {}, tried, 0)
        truth = question.truth[[names.index(expert) for expert in found.experts]]
        low, high = found.intervals.T
        lost = truth[0] - truth.min()
        least, most = found.regret_intervals[0]
        default = truth[found.experts.index(DEFAULT)]
        rows.append(
            (
                regret(found.errors, truth),
                float(np.mean((low <= truth) & (truth <= high))),
                float(least - 1e-9 <= lost <= most + 1e-9),
                float(truth[0] - default > most),
                float(found.far),
            )
        )
    return rows
