"""What advice rests on, as plain arrays: tasks with their results, and a query with its distances to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.library.additive import additive_fit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Evidence:
    """L tasks of a library that have results for some of E experts.

    Attributes:
        errors: float64 [L, E], in percent; NaN where there is no result.
        families: int64 [L], numbers of the families of the tasks; a task of unknown family has one of its own.
        trained_on: int64 [E], the row of the task that an expert was trained on; -1 where unknown or not a row.
        fisher: float32 [L, D], of the tasks; may be None where a method needs distances only.
        of_experts: float32 [E, D], of the task that each expert was trained on; zeros where unknown.
        trained_in: int64 [E], the family of the task that an expert was trained on; -1 where unknown, None for those
            of `trained_on`.
    """

    errors: Matrix
    families: NDArray[np.int64]
    trained_on: NDArray[np.int64]
    fisher: NDArray[np.float32] | None = None
    of_experts: NDArray[np.float32] | None = None
    trained_in: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.errors)

    @cached_property
    def others(self) -> Matrix:
        """The errors without those of experts on the very task that they were trained on."""
        errors = self.errors.copy()
        known = self.trained_on >= 0
        errors[self.trained_on[known], known.nonzero()[0]] = np.nan
        return errors

    @cached_property
    def fit(self) -> tuple[Vector, Vector]:
        """Levels of the tasks [L] and effects of the experts [E], by `additive_fit` of `others`."""
        return additive_fit(self.others)

    @cached_property
    def homes(self) -> NDArray[np.int64]:
        """The family that each expert was trained in, [E]; -1 where unknown."""
        if self.trained_in is not None:
            return self.trained_in
        return np.where(self.trained_on >= 0, self.families[self.trained_on], -1)

    @cached_property
    def at_home(self) -> Mask:
        """Which results [L, E] are in the family that the expert was trained in; none of one that has no others."""
        home = np.asarray(self.homes == self.families[:, None])
        return home & (self.known > home).any(0)

    @cached_property
    def away(self) -> Vector:
        """Effects of the experts [E] by the results that are not `at_home`, beside the levels of `fit`."""
        counted = self.known * ~self.at_home
        beside = np.where(counted > 0, self.others - self.fit[0][:, None], 0.0)
        return np.where(counted.any(0), beside.sum(0) / np.maximum(counted.sum(0), 1), np.nan)

    @cached_property
    def centred(self) -> Matrix:
        """`others` less the levels of their tasks, [L, E]; 0 where there is no result."""
        return np.where(self.known > 0, self.others - self.fit[0][:, None], 0.0)

    @cached_property
    def known(self) -> Matrix:
        """1 where `others` has a result, 0 elsewhere, float64 [L, E] for products."""
        return (~np.isnan(self.others)).astype(float)

    def only(self, kept: Mask) -> Evidence:
        """The part of the tasks for which `kept` [L] is set."""
        number = np.where(kept, kept.cumsum() - 1, -1)
        trained_on = np.where(self.trained_on >= 0, number[self.trained_on], -1)
        return replace(
            self,
            errors=self.errors[kept],
            families=self.families[kept],
            trained_on=trained_on,
            trained_in=self.homes,
            fisher=None if self.fisher is None else self.fisher[kept],
        )


@dataclass(frozen=True)
class Query:
    """A task that advice is wanted for.

    Attributes:
        distances: float64 [L], to the tasks of the evidence; NaN to none.
        to_experts: float64 [E], to the task that each expert was trained on; NaN where unknown.
        fisher: float32 [D].
    """

    distances: Vector
    to_experts: Vector | None = None
    fisher: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Prediction:
    """What a method says about one task.

    Attributes:
        effects: float64 [E], predicted error of each expert in points, relative to what is usual for the task.
        weights: float64 [L], how much each task of the evidence counts, summing to 1 or, where the static list has a
            part in it, to less.
    """

    effects: Vector
    weights: Vector
