"""What one draw of every task and one seed of every expert give, and the questions that are asked of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selection.embeddings import load_embeddings
from selection.experts import Setting, expert_names, task_labels
from selection.scores import SCORES, load_scores
from selection.tried import Tried
from selection.truth import load_truth
from t2v_lightning import Embedding
from t2v_lightning.library.methods import Evidence, Query
from t2v_lightning.library.neighbours import feature_distances, task2vec_distances

Held = Literal["task", "family"]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Replicate:
    """T tasks and E experts.

    Attributes:
        tasks, families: names [T].
        experts: names [E].
        errors, stderrs: float64 [T, E], truth in percent: mean over draws, and its standard error.
        fisher: float32 [T, D].
        mean_features: float32 [T, P].
        distances: float64 [T, T] by name: of Task2Vec (`cosine`, `cosine_unit`) and of mean features (`features`),
            each in units of its median.
        scores: float64 [T, E, scores]; None where they were not measured.
        embeddings: [T].
        tried: what experts do on the images of the draw.
        memory: predictions that several rows share, by name, task and how the library is held out.
    """

    tasks: Sequence[str]
    families: Sequence[str]
    experts: Sequence[str]
    errors: Matrix
    stderrs: Matrix
    fisher: NDArray[np.float32]
    mean_features: NDArray[np.float32]
    distances: dict[str, Matrix]
    scores: Matrix | None
    embeddings: Sequence[Embedding]
    tried: Tried
    memory: dict[tuple[str, int, str], NDArray[np.float64]] = field(default_factory=dict)


def load_replicate(
    setting: Setting, seed: int, number: int, head: str, larger_ones: bool = True
) -> Replicate:
    """From the files of `measure`."""
    every = task_labels(setting)
    experts = expert_names(setting, larger_ones)
    truth = load_truth(setting, experts, seed)
    embeddings = load_embeddings(setting, head, number)
    fisher = np.stack([e.fisher for e in embeddings]).astype(np.float32)
    features = np.stack([e.mean_features for e in embeddings if e.mean_features is not None])
    distances = {name: task2vec_distances(fisher, fisher, name) for name in ("cosine", "cosine_unit")}
    distances["features"] = feature_distances(features, features)
    off = ~np.eye(len(every), dtype=bool)
    try:
        scores = load_scores(setting, experts, seed, number)
    except FileNotFoundError:
        scores = None
    return Replicate(
        list(every),
        [source.family for _, source, _ in every.values()],
        experts,
        truth.mean(2),
        truth.std(2, ddof=1) / truth.shape[2] ** 0.5,
        fisher,
        features,
        {name: d / np.median(d[off]) for name, d in distances.items()},
        scores,
        embeddings,
        Tried(setting, seed, number),
    )


@dataclass(frozen=True)
class Question:
    """One task, the library without it (or without its family), and the experts that may be asked for.

    Attributes:
        replicate: all tasks and experts.
        row: the task.
        library: int64 [L], the tasks of the library.
        candidates: int64 [E'], all experts but those that were trained on the task (or on its family).
    """

    replicate: Replicate
    row: int
    library: NDArray[np.int64]
    candidates: NDArray[np.int64]

    @property
    def truth(self) -> NDArray[np.float64]:
        """Errors of the candidates, [E']."""
        return self.replicate.errors[self.row, self.candidates]

    @property
    def trained_on(self) -> NDArray[np.int64]:
        """The row of the replicate's task that each candidate was trained on, -1 for none, [E']."""
        tasks = list(self.replicate.tasks)
        names = [self.replicate.experts[j] for j in self.candidates]
        return np.array([tasks.index(name) if name in tasks else -1 for name in names])

    @property
    def evidence(self) -> Evidence:
        """What the library knows of the candidates."""
        r, place = self.replicate, {row: n for n, row in enumerate(self.library.tolist())}
        names = sorted(set(r.families))
        of_experts = np.zeros((len(self.candidates), r.fisher.shape[1]), np.float32)
        known = self.trained_on >= 0
        of_experts[known] = r.fisher[self.trained_on[known]]
        return Evidence(
            r.errors[np.ix_(self.library, self.candidates)],
            np.array([names.index(r.families[i]) for i in self.library]),
            np.array([place.get(int(t), -1) for t in self.trained_on]),
            r.fisher[self.library],
            of_experts,
        )

    def between(self, distance: str) -> Matrix:
        """Distances between the library's tasks, [L, L]."""
        return self.replicate.distances[distance][np.ix_(self.library, self.library)]

    def query(self, distance: str) -> Query:
        """The task as the methods take it."""
        d = self.replicate.distances[distance][self.row]
        known = self.trained_on
        to_experts = np.where(known >= 0, d[known], np.nan)
        return Query(d[self.library], to_experts, self.replicate.fisher[self.row])

    def score(self, name: str) -> NDArray[np.float64]:
        """One of `SCORES` for the candidates, [E']."""
        assert self.replicate.scores is not None
        return np.asarray(self.replicate.scores[self.row, self.candidates, SCORES.index(name)])


def questions(replicate: Replicate, held: Held) -> Iterator[Question]:
    """One for each task."""
    families = np.array(replicate.families)
    family_of = dict(zip(replicate.tasks, replicate.families, strict=True))
    of_experts = np.array([family_of.get(name, "") for name in replicate.experts])
    for row, task in enumerate(replicate.tasks):
        if held == "task":
            library = np.flatnonzero(np.arange(len(families)) != row)
            candidates = np.array([name != task for name in replicate.experts])
        else:
            library = np.flatnonzero(families != families[row])
            candidates = of_experts != families[row]
        yield Question(replicate, row, library, np.flatnonzero(candidates))
