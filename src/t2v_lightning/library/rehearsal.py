"""What a library learns from being asked about its own tasks: units, settings, what is usual, and how wrong it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.functional.distances import cdist
from t2v_lightning.library.evidence import Evidence, Matrix, Prediction, Query, Vector
from t2v_lightning.library.leave_one_out import Method, Residuals, left_out, residuals
from t2v_lightning.library.methods.expert_embedding import expert_embedding
from t2v_lightning.library.methods.kernel_average import kernel_average
from t2v_lightning.library.methods.nearest_expert import nearest_expert
from t2v_lightning.library.methods.static_list import static_list
from t2v_lightning.library.methods.tuning import Tuned, mixed, tune
from t2v_lightning.library.neighbours import feature_distances, task2vec_distances, typical

MethodName = Literal["library", "static", "nearest", "asymmetric", "expert_embedding"]

_ASKED, _LEFT_OUT, _TRAINED = 1000, 200, 16
"""Most tasks that take part, that are left out in turn, and that are left out where each costs a training."""


class Rehearsal:
    """Leave-one-out on a library, or on a thousand of its tasks; each part is done when it is first asked for.

    Args:
        evidence: all tasks with their embeddings and those of the experts.
        mean_features: float32 [L, P] of the tasks; None where some are unknown.
        distance: `cosine` or `cosine_unit`.

    Attributes:
        unit, second_unit: the medians of Task2Vec distances and of those of mean features.
    """

    def __init__(self, evidence: Evidence, mean_features: NDArray[np.float32] | None, distance: str) -> None:
        count = len(evidence)
        if count > _ASKED:
            kept = np.zeros(count, bool)
            kept[np.linspace(0, count - 1, _ASKED).astype(np.int64)] = True
            evidence, count = evidence.only(kept), _ASKED
            mean_features = None if mean_features is None else mean_features[kept]
        assert evidence.fisher is not None
        self.evidence, self.distance = evidence, distance
        self.rows = np.linspace(0, count - 1, min(count, _LEFT_OUT)).astype(np.int64)
        first = task2vec_distances(evidence.fisher[self.rows], evidence.fisher, distance)
        self.unit = typical(first, self.rows)
        self.first = first / self.unit
        self.second, self.second_unit = None, 1.0
        if mean_features is not None:
            second = feature_distances(mean_features[self.rows], mean_features)
            self.second_unit = typical(second, self.rows)
            self.second = second / self.second_unit
        self._tuned: dict[tuple[bool, bool], Tuned] = {}
        self._usual: dict[float, tuple[float, float]] = {}
        self._wrong: dict[tuple[str, bool, bool], tuple[Residuals, Vector]] = {}

    def tuned(self, by_family: bool, features: bool) -> Tuned:
        """Settings of the kernel average for tasks like those of the library, or for a new family.

        Args:
            by_family: for tasks of a family that the library does not have.
            features: whether mean features may be used.
        """
        key = by_family, features and self.second is not None
        if key not in self._tuned:
            second = self.second if key[1] else None
            self._tuned[key] = tune(self.evidence, self.rows, self.first, second, by_family)
        return self._tuned[key]

    def usual_distances(self, share: float) -> tuple[float, float]:
        """Median distance of tasks to the nearest task of another family, and to all tasks of other families.

        Args:
            share: of mean features in the distance.
        """
        if share not in self._usual:
            other = self.evidence.families[self.rows][:, None] != self.evidence.families
            distances = mixed(self.first, self.second, share)
            apart = np.where(other, distances, np.inf).min(1)
            one_family = np.inf if len(self.evidence) > 1 else -np.inf  # of one task it is not known
            self._usual[share] = (
                (float(np.median(apart)), float(np.median(distances[other])))
                if other.any()
                else (np.inf, one_family)
            )
        return self._usual[share]

    def wrong(self, name: MethodName, by_family: bool, features: bool) -> tuple[Residuals, Vector]:
        """How wrong a method is about the library's own tasks, and about the level [R] of each of them."""
        key = name, by_family, features
        if key not in self._wrong:
            settings, evidence = self.tuned(by_family, features), self.evidence
            assert evidence.fisher is not None
            fisher, kernel = evidence.fisher, settings.kernel
            distances = mixed(self.first, self.second if features else None, settings.share)
            place = {row: n for n, row in enumerate(self.rows.tolist())}
            to_experts = distances_to_experts(fisher[self.rows], evidence, name, self.distance)

            def query(row: int) -> Query:
                known = None if to_experts is None else to_experts[place[row]]
                return Query(distances[place[row]], known, fisher[row])

            rows = self.rows
            if name == "expert_embedding":
                rows = rows[:: max(len(rows) // _TRAINED, 1)]
            found = residuals(method_of(name, settings), evidence, query, rows, by_family)
            levels = evidence.fit[0]
            wrong = [
                levels[row] - kernel.mean(levels[kept], kernel.weights(distances[place[row], kept]))
                for row, kept, _ in left_out(evidence, found.rows, by_family)
            ]
            self._wrong[key] = found, np.array(wrong)
        return self._wrong[key]


def method_of(name: MethodName, settings: Tuned) -> Method:
    """A method as a function."""
    methods: dict[str, Callable[..., Prediction]] = {
        "library": partial(kernel_average, kernel=settings.kernel),
        "static": static_list,
        "nearest": nearest_expert,
        "asymmetric": nearest_expert,
        "expert_embedding": expert_embedding,
    }
    return methods[name]


def distances_to_experts(
    fisher: NDArray[np.float32], evidence: Evidence, name: MethodName, distance: str
) -> Matrix | None:
    """Distances [n, E] from tasks to those that the experts were trained on, NaN where unknown.

    The trivial task of `asymmetric` is the one of the library that has the least Fisher information.

    Args:
        fisher: float32 [n, D].
        evidence: has the tasks of the experts.
        name: of the method; None is returned for one that does not need them.
        distance: for `nearest`.
    """
    if name not in ("nearest", "asymmetric"):
        return None
    assert evidence.of_experts is not None
    assert evidence.fisher is not None
    known = np.asarray(evidence.of_experts.any(1))
    out = np.full((len(fisher), len(known)), np.nan)
    if known.any() and name == "nearest":
        out[:, known] = task2vec_distances(fisher, evidence.of_experts[known], distance)
    elif known.any():
        easiest = evidence.fisher[np.linalg.norm(evidence.fisher, axis=1).argmin()].astype(float)
        experts = evidence.of_experts[known].astype(float)
        out[:, known] = cdist(experts, fisher.astype(float), "asymmetric", trivial=easiest).T
    return out


def check_method(method: str) -> MethodName:
    """The name of a method.

    Raises:
        ValueError: there is none of that name.
    """
    if method not in get_args(MethodName):
        raise ValueError(f"unknown method {method!r}; allowed are {', '.join(get_args(MethodName))}")
    return method  # type: ignore[return-value]
