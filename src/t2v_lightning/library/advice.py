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
from t2v_lightning.library.leave_one_out import Method, Residuals, residuals
from t2v_lightning.library.methods.additive import additive_fit
from t2v_lightning.library.methods.expert_embedding import expert_embedding
from t2v_lightning.library.methods.kernel_average import kernel_average
from t2v_lightning.library.methods.nearest_expert import nearest_expert
from t2v_lightning.library.methods.static_list import static_list
from t2v_lightning.library.methods.tuning import Tuned, mixed, tune
from t2v_lightning.library.neighbours import feature_distances, task2vec_distances, typical
from t2v_lightning.library.sampling import effects_under_resampling, filled

MethodName = Literal["library", "static", "nearest", "asymmetric", "expert_embedding"]

_LEFT_OUT = 200
"""Most tasks of a library that are left out to choose its settings."""


@dataclass(frozen=True)
class Newcomer:
    """A task that advice is wanted for.

    Attributes:
        fisher: float32 [D].
        mean_features: float32 [P], or None where unknown.
        noise: the embedding without each of G groups of its images in turn, float32 [G, D]; None where unknown.
    """

    fisher: NDArray[np.float32]
    mean_features: NDArray[np.float32] | None = None
    noise: NDArray[np.float32] | None = None


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
        self.rows = np.unique(np.linspace(0, count - 1, min(count, _LEFT_OUT)).astype(np.int64))
        first = task2vec_distances(self.fisher[self.rows], self.fisher, distance)
        self.unit = typical(first, self.rows)
        self.first = first / self.unit
        self.second, self.second_unit = None, 1.0
        if mean_features is not None:
            second = feature_distances(mean_features[self.rows], mean_features)
            self.second_unit = typical(second, self.rows)
            self.second = second / self.second_unit
        self._tuned: dict[tuple[bool, bool], Tuned] = {}
        self._residuals: dict[tuple[str, bool, bool], Residuals] = {}

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
        features = newcomer.mean_features is not None and self.second is not None
        first = task2vec_distances(newcomer.fisher[None], self.fisher, self.distance)[0] / self.unit
        second = None
        if features:
            assert newcomer.mean_features is not None
            assert self.mean_features is not None
            second = feature_distances(newcomer.mean_features[None], self.mean_features)[0] / self.second_unit
        usual = self.tuned(False, features)
        distances = mixed(first, second, usual.share)
        new_family, far = self._place(float(distances.min()), usual.share)
        settings = self.tuned(new_family, features)
        distances = mixed(first, second, settings.share)
        query = Query(distances, fisher=newcomer.fisher)
        if method in ("nearest", "asymmetric"):
            query = replace(query, to_experts=self._to_experts(newcomer.fisher[None], method)[0])
        name: MethodName = "static" if far else method
        prediction = self._method(name, settings)(self.evidence, query)
        rng = np.random.default_rng(seed)
        errors = self.evidence.others
        levels, effects = additive_fit(errors)
        weights = settings.kernel.weights(distances)
        samples = np.broadcast_to(prediction.effects, (draws, len(effects)))
        if name == "library":
            noise = None
            if newcomer.noise is not None:
                noise = (1 - settings.share) * self._noise(newcomer.noise, first, weights)
            samples = effects_under_resampling(
                rng, draws, errors - levels[:, None], self.stderrs, effects, distances, noise, settings.kernel
            )
        left = self._left_out(name, new_family, features)
        if len(left.rows):
            picked = rng.integers(len(left.rows), size=draws)
            samples = samples + filled(left.effects, rng)[picked]
        chances = weights + settings.kernel.prior / len(weights)
        chances = chances / chances.sum()
        drawn = levels[rng.choice(len(levels), size=draws, p=chances)]
        level = float(chances @ levels)
        return Advice(
            prediction.effects,
            level,
            (samples + drawn[:, None]).clip(0, 100),
            prediction.weights if name == "library" else np.zeros(len(levels)),
            far,
        )

    def _place(self, nearest: float, share: float) -> tuple[bool, bool]:
        """Whether a task at this distance from the nearest one is of a new family, and whether it is far from all."""
        families = self.evidence.families
        other = families[self.rows][:, None] != families
        if not other.any():
            return False, len(families) < 2
        distances = mixed(self.first, self.second, share)
        apart = np.where(other, distances, np.inf).min(1)
        return bool(nearest > np.median(apart)), bool(nearest > np.median(distances[other]))

    def _method(self, name: MethodName, settings: Tuned) -> Method:
        methods: dict[str, Callable[..., Prediction]] = {
            "library": partial(kernel_average, kernel=settings.kernel),
            "static": static_list,
            "nearest": nearest_expert,
            "asymmetric": nearest_expert,
            "expert_embedding": expert_embedding,
        }
        return methods[name]

    def _left_out(self, name: MethodName, by_family: bool, features: bool) -> Residuals:
        """How wrong the method is about the library's own tasks."""
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
            self._residuals[key] = residuals(
                self._method(name, settings), self.evidence, query, rows, by_family
            )
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

    def _noise(self, deleted: NDArray[np.float32], first: Vector, weights: Vector) -> Matrix:
        """Changes of the distances to the tasks that count, for each group of images that is left out: [G, L]."""
        near = weights.argsort()[::-1][:100]
        change = np.zeros((len(deleted), len(first)))
        change[:, near] = task2vec_distances(deleted, self.fisher[near], self.distance) / self.unit
        change[:, near] -= change[:, near].mean(0)
        return change


def check_method(method: str) -> MethodName:
    """The name of a method.

    Raises:
        ValueError: there is none of that name.
    """
    if method not in get_args(MethodName):
        raise ValueError(f"unknown method {method!r}; allowed are {', '.join(get_args(MethodName))}")
    return method  # type: ignore[return-value]
