"""What a library learns from being asked about its own tasks: units, settings, what is usual, and how wrong it is."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.functional.distances import cdist
from t2v_lightning.library.evidence import Evidence, Matrix, Query, Vector
from t2v_lightning.library.leave_one_out import Method, Residuals, residuals
from t2v_lightning.library.methods.expert_embedding import expert_embedding
from t2v_lightning.library.methods.kernel_average import kernel_average
from t2v_lightning.library.methods.kernel_ridge import Ridge
from t2v_lightning.library.methods.nearest_expert import nearest_expert
from t2v_lightning.library.methods.ridge_tuning import left_out_errors, tune_ridge
from t2v_lightning.library.methods.static_list import static_list
from t2v_lightning.library.methods.tuning import Tuned, mixed, tune
from t2v_lightning.library.neighbours import feature_distances, task2vec_distances, typical

MethodName = Literal["library", "kernel_average", "static", "nearest", "asymmetric", "expert_embedding"]

_ASKED, _TRAINED = 200, 16
"""Most tasks that take part, and that are left out where each costs a training."""
_CELLS, _FEWEST = 10_000, 20
"""Results of the tasks that are left out one by one, and how many tasks there are at least."""


class Rehearsal:
    """Leave-one-out on a library, each part of which is done when it is first asked for.

    Of more than 200 tasks every so manieth takes part. These lie further apart than all of them do, so that what is
    learned is on the careful side.

    Args:
        evidence: all tasks with their embeddings and those of the experts.
        mean_features: float32 [L, P] of the tasks; None where some are unknown.
        distance: `cosine` or `cosine_unit`.

    Attributes:
        unit, second_unit: the medians of Task2Vec distances and of those of mean features.
    """

    def __init__(self, evidence: Evidence, mean_features: NDArray[np.float32] | None, distance: str) -> None:
        if len(evidence) > _ASKED:
            kept = np.zeros(len(evidence), bool)
            kept[np.linspace(0, len(evidence) - 1, _ASKED).astype(np.int64)] = True
            evidence = evidence.only(kept)
            mean_features = None if mean_features is None else mean_features[kept]
        assert evidence.fisher is not None
        self.evidence, self.distance = evidence, distance
        first = task2vec_distances(evidence.fisher, None, distance)
        self.unit = typical(first)
        self.first = first / self.unit
        self.second, self.second_unit = None, 1.0
        if mean_features is not None:
            second = feature_distances(mean_features, mean_features)
            self.second_unit = typical(second)
            self.second = second / self.second_unit
        self._ridges: dict[tuple[bool, bool], Ridge] = {}
        self._averages: dict[tuple[bool, bool], Tuned] = {}
        self._usual: dict[float, tuple[float, float]] = {}
        self._wrong: dict[tuple[str, bool, bool], tuple[Residuals, Vector]] = {}

    def ridge(self, by_family: bool, features: bool) -> Ridge:
        """Settings of the regression for tasks like those of the library, or for a new family.

        Args:
            by_family: for tasks of a family that the library does not have.
            features: whether mean features may be used.
        """
        key = by_family, features and self.second is not None
        if key not in self._ridges:
            second = self.second if key[1] else None
            self._ridges[key] = tune_ridge(self.evidence, self.first, second, by_family)
        return self._ridges[key]

    def average(self, by_family: bool, features: bool) -> Tuned:
        """Settings of the kernel average, likewise."""
        key = by_family, features and self.second is not None
        if key not in self._averages:
            second = self.second if key[1] else None
            self._averages[key] = tune(self.evidence, self._rows(), self.first, second, by_family)
        return self._averages[key]

    def method(self, name: MethodName, by_family: bool, features: bool) -> tuple[Method, float]:
        """A method as a function, and the share of mean features in the distances that it takes.

        Args:
            name: of it; `library` is the regression itself.
            by_family, features: as `ridge`.
        """
        if name == "kernel_average":
            tuned = self.average(by_family, features)
            return partial(kernel_average, kernel=tuned.kernel), tuned.share
        methods: dict[str, Method] = {
            "static": static_list,
            "nearest": nearest_expert,
            "asymmetric": nearest_expert,
            "expert_embedding": expert_embedding,
        }
        return methods[name], 0.0

    def usual_distances(self, share: float) -> tuple[float, float]:
        """From which distances on the nearest task is of another family, and unlike all: the library's own say.

        Midway between the median distances of its tasks to the nearest of their own family and to the nearest of
        another, or the latter where no family has two tasks; and the median of all distances between families. Infinite
        where there is one family.

        Args:
            share: of mean features in the distance.
        """
        if share not in self._usual:
            distances = mixed(self.first, self.second, share)
            other = self.evidence.families[:, None] != self.evidence.families
            apart = float(np.median(np.where(other, distances, np.inf).min(1)))
            alike = np.where(other | np.eye(len(other), dtype=bool), np.inf, distances).min(1)
            alike = alike[np.isfinite(alike)]
            one_family = np.inf if len(other) > 1 else -np.inf  # of one task it is not known
            self._usual[share] = (
                (apart + float(np.median(alike))) / 2 if len(alike) else apart,
                float(np.median(distances[other])) if other.any() else one_family,
            )
        return self._usual[share]

    def wrong(self, name: MethodName, by_family: bool, features: bool) -> tuple[Residuals, Vector]:
        """How wrong a method is about the library's own tasks, and the regression about the level [R] of each."""
        key = name, by_family, features
        if key not in self._wrong:
            ridge = self.ridge(by_family, features)
            between = mixed(self.first, self.second if features else None, ridge.share)
            by_ridge = left_out_errors(self.evidence, between, ridge, by_family)
            if name == "library":
                found = self._of_ridge(by_ridge[:, :-1])
            else:
                found = self._one_by_one(name, by_family, features)
            self._wrong[key] = found, by_ridge[found.rows, -1]
        return self._wrong[key]

    def _of_ridge(self, wrong: Matrix) -> Residuals:
        known = ~np.isnan(wrong)
        rows = np.flatnonzero(known.sum(1) >= min(2, known.shape[1]))
        wrong = wrong[rows]
        return Residuals(rows, _centred(wrong), _centred(self.evidence.errors[rows] - wrong))

    def _one_by_one(self, name: MethodName, by_family: bool, features: bool) -> Residuals:
        method, share = self.method(name, by_family, features)
        evidence, rows = self.evidence, self._rows()
        assert evidence.fisher is not None
        fisher, distances = evidence.fisher, mixed(self.first, self.second if features else None, share)
        to_experts = distances_to_experts(fisher, evidence, name, self.distance)

        def query(row: int) -> Query:
            return Query(distances[row], None if to_experts is None else to_experts[row], fisher[row])

        if name == "expert_embedding":
            rows = rows[:: max(len(rows) // _TRAINED, 1)]
        return residuals(method, evidence, query, rows, by_family)

    def _rows(self) -> NDArray[np.int64]:
        """Tasks that are left out where each costs as much as a query."""
        count, experts = self.evidence.errors.shape
        few = min(count, max(_FEWEST, _CELLS // experts))
        return np.linspace(0, count - 1, few).astype(np.int64)


def _centred(values: Matrix) -> Matrix:
    """Rows less their means; NaN stays."""
    return np.asarray(values - np.nanmean(values, axis=1, keepdims=True))


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
