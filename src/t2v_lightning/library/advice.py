"""Advice from evidence: which settings suit a task, what is predicted for it, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, get_args

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
from t2v_lightning.library.sampling import RESAMPLED, effects_under_resampling, filled

MethodName = Literal["library", "static", "nearest", "asymmetric", "expert_embedding"]

_LEFT_OUT, _PAIRS = 200, 500_000
"""Most tasks of a library that are left out to choose its settings, and most distances from them to all others."""


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
    """Evidence under one distance, with what leave-one-out on it tells; that is found out when it is first asked for.

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
        count = len(evidence)
        most = min(count, _LEFT_OUT, max(_PAIRS // count, 30))
        self.rows = np.linspace(0, count - 1, most).astype(np.int64)
        first = task2vec_distances(self.fisher[self.rows], self.fisher, distance)
        self.unit = typical(first, self.rows)
        self.first = first / self.unit
        self.second, self.second_unit = None, 1.0
        if mean_features is not None:
            second = feature_distances(mean_features[self.rows], mean_features)
            self.second_unit = typical(second, self.rows)
            self.second = second / self.second_unit
        self._tuned: dict[tuple[bool, bool], Tuned] = {}
        self._usual: dict[float, tuple[float, float]] = {}
        self._residuals: dict[tuple[str, bool, bool], tuple[Residuals, Vector]] = {}

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
        query = Query(place.distances, fisher=newcomer.fisher)
        if method in ("nearest", "asymmetric"):
            query = replace(query, to_experts=self._to_experts(newcomer.fisher[None], method)[0])
        name: MethodName = "static" if place.far else method
        prediction = self._method(name, place.settings)(self.evidence, query)
        rng = np.random.default_rng(seed)
        weights = kernel.weights(place.distances)
        samples = np.broadcast_to(prediction.effects, (draws, len(prediction.effects)))
        if name == "library":
            noise = self._noise(newcomer, weights, place.settings.share)
            samples = effects_under_resampling(
                rng, draws, self.evidence, self.stderrs, place.distances, noise, kernel
            )
        level = kernel.mean(self.evidence.fit[0], weights)
        left, levels = self._left_out(name, place.new_family, place.features)
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
        first = task2vec_distances(newcomer.fisher[None], self.fisher, self.distance)[0] / self.unit
        second, features = None, False
        if newcomer.mean_features is not None and self.mean_features is not None:
            features = True
            second = feature_distances(newcomer.mean_features[None], self.mean_features)[0] / self.second_unit
        usual = self.tuned(False, features)
        nearest = mixed(first, second, usual.share).min()
        apart, other = self._usual_distances(usual.share)
        settings = self.tuned(bool(nearest > apart), features)
        distances = mixed(first, second, settings.share)
        return _Place(distances, settings, bool(nearest > apart), features, bool(nearest > other))

    def _usual_distances(self, share: float) -> tuple[float, float]:
        """Median distance of tasks to the nearest task of another family, and to all tasks of other families."""
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

    def _method(self, name: MethodName, settings: Tuned) -> Method:
        methods: dict[str, Callable[..., Prediction]] = {
            "library": partial(kernel_average, kernel=settings.kernel),
            "static": static_list,
            "nearest": nearest_expert,
            "asymmetric": nearest_expert,
            "expert_embedding": expert_embedding,
        }
        return methods[name]

    def _left_out(self, name: MethodName, by_family: bool, features: bool) -> tuple[Residuals, Vector]:
        """How wrong the method is about the library's own tasks, and about the level [R] of each of them."""
        key = name, by_family, features
        if key not in self._residuals:
            settings = self.tuned(by_family, features)
            distances = mixed(self.first, self.second if features else None, settings.share)
            place = {row: n for n, row in enumerate(self.rows.tolist())}
            to_experts = None
            if name in ("nearest", "asymmetric"):
                to_experts = self._to_experts(self.fisher[self.rows], name)

            def query(row: int) -> Query:
                known = None if to_experts is None else to_experts[place[row]]
                return Query(distances[place[row]], known, self.fisher[row])

            rows = self.rows
            if name == "expert_embedding":  # each is trained anew
                rows = rows[:: max(len(rows) // 16, 1)]
            found = residuals(self._method(name, settings), self.evidence, query, rows, by_family)
            levels = self.evidence.fit[0]
            wrong = [
                levels[row]
                - settings.kernel.mean(levels[kept], settings.kernel.weights(distances[place[row], kept]))
                for row, kept, _ in left_out(self.evidence, found.rows, by_family)
            ]
            self._residuals[key] = found, np.array(wrong)
        return self._residuals[key]

    def _to_experts(self, fisher: NDArray[np.float32], method: str) -> Matrix:
        """Distances [n, E] from tasks to those that the experts were trained on; NaN where unknown."""
        of_experts = self.evidence.of_experts
        assert of_experts is not None
        known = np.asarray(of_experts.any(1))
        out = np.full((len(fisher), len(known)), np.nan)
        if not known.any():
            return out
        if method == "asymmetric":
            out[:, known] = cdist(
                of_experts[known].astype(float), fisher.astype(float), "asymmetric", trivial=self._easiest
            ).T
        else:
            out[:, known] = task2vec_distances(fisher, of_experts[known], self.distance)
        return out

    @cached_property
    def _easiest(self) -> Any:
        """The task of the library that has the least Fisher information, in place of a trivial one."""
        return self.fisher[np.linalg.norm(self.fisher, axis=1).argmin()].astype(float)

    def _noise(self, newcomer: Newcomer, weights: Vector, share: float) -> Matrix | None:
        """Changes of the distances to the tasks that count, without each group of images [G, L]; None where unknown."""
        deleted = newcomer.without_groups
        if deleted is None:
            return None
        near = weights.argsort()[::-1][:RESAMPLED]
        change = np.zeros((len(deleted), len(weights)))
        moved = task2vec_distances(deleted, self.fisher[near], self.distance) / self.unit
        change[:, near] = (1 - share) * (moved - moved.mean(0))
        return change


def check_method(method: str) -> MethodName:
    """The name of a method.

    Raises:
        ValueError: there is none of that name.
    """
    if method not in get_args(MethodName):
        raise ValueError(f"unknown method {method!r}; allowed are {', '.join(get_args(MethodName))}")
    return method  # type: ignore[return-value]
