"""Advice from evidence: which settings suit a task, what is predicted for it, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.library.evidence import Evidence, Mask, Matrix, Prediction, Query, Vector
from t2v_lightning.library.leave_one_out import Residuals
from t2v_lightning.library.methods.kernel_ridge import Regression, Ridge, at_home_in, nearest_tasks, regress
from t2v_lightning.library.methods.tuning import mixed
from t2v_lightning.library.neighbours import feature_distances, task2vec_distances
from t2v_lightning.library.rehearsal import MethodName, Rehearsal, distances_to_experts
from t2v_lightning.library.sampling import moves, residuals_like


@dataclass(frozen=True)
class Newcomer:
    """A task that advice is wanted for.

    Attributes:
        fisher: float32 [D].
        mean_features: float32 [P], or None where unknown.
        without_groups: float32 [G, D], `fisher` without each of G groups of its images in turn; None where unknown.
    """

    fisher: NDArray[np.float32]
    mean_features: NDArray[np.float32] | None = None
    without_groups: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Advice:
    """What is predicted for a newcomer.

    Attributes:
        effects: float64 [E], points of error relative to the level.
        level: error in percent that is usual for the task.
        samples: float64 [S, E], errors in percent that are as likely as each other. Where no task can be left out to
            see how wrong advice is, as with one task, any error is.
        weights: float64 [L], of the tasks.
        far: whether the library holds nothing near, so that this is the static list.
        rehearsed: whether tasks could be left out, so that the samples say something.
    """

    effects: Vector
    level: float
    samples: Matrix
    weights: Vector
    far: bool
    rehearsed: bool


@dataclass(frozen=True)
class _Place:
    """How a newcomer lies to the tasks of a library.

    Attributes:
        first: float64 [L], Task2Vec distances, in units of the median.
        second: float64 [L], of mean features, likewise; None where they are not known of all.
        ridge: settings of the regression for it.
        family: number of the family of the nearest task; None where that is so far that it is of another family.
        far: whether it is further from all tasks than tasks of different families usually are.
    """

    first: Vector
    second: Vector | None
    ridge: Ridge
    family: int | None
    far: bool


class Adviser:
    """Evidence under one distance.

    Args:
        evidence: L tasks with their embeddings and those of the experts.
        stderrs: standard errors of the results of some tasks, int64 [n] to float64 [n, E]; NaN where unknown.
        mean_features: float32 [L, P] of the tasks; None where some are unknown.
        distance: `cosine` or `cosine_unit`.
    """

    def __init__(
        self,
        evidence: Evidence,
        stderrs: Callable[[NDArray[np.int64]], Matrix],
        mean_features: NDArray[np.float32] | None,
        distance: str,
    ) -> None:
        assert evidence.fisher is not None
        self.evidence, self.stderrs, self.mean_features = evidence, stderrs, mean_features
        self.distance, self.fisher = distance, evidence.fisher
        self.rehearsal = Rehearsal(evidence, mean_features, distance)

    def ask(self, newcomer: Newcomer, method: MethodName, seed: int = 0, draws: int = 1000) -> Advice:
        """Advice for a task.

        Args:
            newcomer: the task.
            method: by which experts are ranked.
            seed: of the samples.
            draws: S.
        """
        place = self._place(newcomer)
        name: MethodName = "static" if place.far else method
        regression = self._regression(place)
        rng = np.random.default_rng(seed)
        moved = moves(
            rng, draws, regression, self.stderrs(regression.near), self._changes(newcomer, regression, place)
        )
        weights = np.zeros(len(self.evidence))
        if name == "library":
            effects = regression.effects
            weights[regression.near] = regression.weights
        else:
            prediction = self._prediction(name, newcomer, place)
            effects, weights = prediction.effects, prediction.weights
            moved[:, :-1] = 0  # it is not that of the regression
        left, levels = self.rehearsal.wrong(name, place.family is None, place.second is not None)
        rehearsed = len(left.rows) > 0
        if rehearsed:
            picked = rng.integers(len(left.rows), size=draws)
            moved[:, :-1] += residuals_like(left.effects, *self._homes(name, left, place), rng)[picked]
            moved[:, -1] += levels[picked]
            samples = regression.level + effects + moved[:, :-1] + moved[:, -1:]
        else:  # nobody knows how wrong advice is here
            samples = rng.uniform(0, 100, size=(draws, len(effects)))
        return Advice(effects, regression.level, samples.clip(0, 100), weights, place.far, rehearsed)

    def _homes(self, name: MethodName, left: Residuals, place: _Place) -> tuple[Mask, Mask]:
        """Which residuals are at home [R, E], and which experts are in the family of the newcomer [E].

        Nothing and nobody for methods that do not tell them apart.
        """
        if name != "library":
            return np.zeros(left.effects.shape, bool), np.zeros(left.effects.shape[1], bool)
        return self.rehearsal.evidence.at_home[left.rows], at_home_in(self.evidence, place.family)

    def _place(self, newcomer: Newcomer) -> _Place:
        """How a task lies to those of the library."""
        known = self.rehearsal
        first = task2vec_distances(newcomer.fisher[None], self.fisher, self.distance)[0] / known.unit
        second = None
        if newcomer.mean_features is not None and self.mean_features is not None:
            second = (
                feature_distances(newcomer.mean_features[None], self.mean_features)[0] / known.second_unit
            )
        ridge = known.ridge(False, second is not None)
        distances = mixed(first, second, ridge.share)
        nearest = float(distances.min())
        apart, other = known.usual_distances(ridge.share)
        if nearest > apart:
            return _Place(first, second, known.ridge(True, second is not None), None, nearest > other)
        return _Place(first, second, ridge, int(self.evidence.families[distances.argmin()]), nearest > other)

    def _regression(self, place: _Place) -> Regression:
        """On the nearest tasks."""
        distances = mixed(place.first, place.second, place.ridge.share)
        near = nearest_tasks(distances)
        between, second = task2vec_distances(self.fisher[near], None, self.distance), None
        if place.second is not None and self.mean_features is not None:
            features = self.mean_features[near]
            second = feature_distances(features, features) / self.rehearsal.second_unit
        mixture = mixed(between / self.rehearsal.unit, second, place.ridge.share)
        return regress(self.evidence, near, distances[near], mixture, place.ridge, place.family)

    def _prediction(self, name: MethodName, newcomer: Newcomer, place: _Place) -> Prediction:
        """By another method than the regression."""
        method, share = self.rehearsal.method(name, place.family is None, place.second is not None)
        to_experts = distances_to_experts(newcomer.fisher[None], self.evidence, name, self.distance)
        return method(
            self.evidence,
            Query(
                mixed(place.first, place.second, share),
                None if to_experts is None else to_experts[0],
                newcomer.fisher,
            ),
        )

    def _changes(self, newcomer: Newcomer, regression: Regression, place: _Place) -> Matrix | None:
        """Changes of the distances to the tasks that count, without each group of images [G, n]; None where unknown."""
        if newcomer.without_groups is None:
            return None
        near = self.fisher[regression.near]
        moved = task2vec_distances(newcomer.without_groups, near, self.distance) / self.rehearsal.unit
        return np.asarray((1 - place.ridge.share) * (moved - moved.mean(0)))
