"""Advice from evidence: which settings suit a task, what is predicted for it, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.library.evidence import Evidence, Matrix, Query, Vector
from t2v_lightning.library.methods.tuning import Tuned, mixed
from t2v_lightning.library.neighbours import feature_distances, task2vec_distances
from t2v_lightning.library.rehearsal import MethodName, Rehearsal, distances_to_experts, method_of
from t2v_lightning.library.sampling import RESAMPLED, effects_under_resampling, filled


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
        effects: float64 [E], points of error relative to the mean of all experts.
        level: error in percent of the mean of all experts.
        samples: float64 [S, E], errors in percent that are as likely as each other.
        weights: float64 [L], of the tasks.
        far: whether the library holds nothing near, so that this is the static list.
    """

    effects: Vector
    level: float
    samples: Matrix
    weights: Vector
    far: bool


@dataclass(frozen=True)
class _Place:
    """How a newcomer lies to the tasks of a library.

    Attributes:
        distances: float64 [L], in units of the median.
        settings: of the kernel average for it.
        new_family: whether it is further from all tasks than tasks usually are from the nearest of another family.
        features: whether mean features are known of all.
        far: whether it is further from all tasks than tasks of different families usually are.
    """

    distances: Vector
    settings: Tuned
    new_family: bool
    features: bool
    far: bool


class Adviser:
    """Evidence under one distance.

    Args:
        evidence: L tasks with their embeddings and those of the experts.
        stderrs: float64 [L, E], standard errors of the results; NaN where unknown.
        mean_features: float32 [L, P] of the tasks; None where some are unknown.
        distance: `cosine` or `cosine_unit`.
    """

    def __init__(
        self, evidence: Evidence, stderrs: Matrix, mean_features: NDArray[np.float32] | None, distance: str
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
        kernel = place.settings.kernel
        name: MethodName = "static" if place.far else method
        to_experts = distances_to_experts(newcomer.fisher[None], self.evidence, method, self.distance)
        query = Query(place.distances, None if to_experts is None else to_experts[0], newcomer.fisher)
        prediction = method_of(name, place.settings)(self.evidence, query)
        rng = np.random.default_rng(seed)
        weights = kernel.weights(place.distances)
        samples = np.broadcast_to(prediction.effects, (draws, len(prediction.effects)))
        if name == "library":
            noise = self._noise(newcomer, weights, place.settings.share)
            samples = effects_under_resampling(
                rng, draws, self.evidence, self.stderrs, place.distances, noise, kernel
            )
        level = kernel.mean(self.evidence.fit[0], weights)
        left, levels = self.rehearsal.wrong(name, place.new_family, place.features)
        if len(left.rows):
            picked = rng.integers(len(left.rows), size=draws)
            samples = samples + (filled(left.effects, rng) + levels[:, None])[picked]
        return Advice(
            prediction.effects,
            level,
            (samples + level).clip(0, 100),
            prediction.weights if name == "library" else np.zeros(len(weights)),
            place.far,
        )

    def _place(self, newcomer: Newcomer) -> _Place:
        """How a task lies to those of the library."""
        known = self.rehearsal
        first = task2vec_distances(newcomer.fisher[None], self.fisher, self.distance)[0] / known.unit
        second, features = None, False
        if newcomer.mean_features is not None and self.mean_features is not None:
            features = True
            second = (
                feature_distances(newcomer.mean_features[None], self.mean_features)[0] / known.second_unit
            )
        share = known.tuned(False, features).share
        nearest = float(mixed(first, second, share).min())
        apart, other = known.usual_distances(share)
        settings = known.tuned(nearest > apart, features)
        distances = mixed(first, second, settings.share)
        return _Place(distances, settings, nearest > apart, features, nearest > other)

    def _noise(self, newcomer: Newcomer, weights: Vector, share: float) -> Matrix | None:
        """Changes of the distances to the tasks that count, without each group of images [G, L]; None where unknown."""
        deleted = newcomer.without_groups
        if deleted is None:
            return None
        near = weights.argsort()[::-1][:RESAMPLED]
        change = np.zeros((len(deleted), len(weights)))
        moved = task2vec_distances(deleted, self.fisher[near], self.distance) / self.rehearsal.unit
        change[:, near] = (1 - share) * (moved - moved.mean(0))
        return change
