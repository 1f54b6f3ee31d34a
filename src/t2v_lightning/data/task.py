"""A task as a value: samples, their labels, and the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.errors import LabelError

Sample = TypeVar("Sample")


@dataclass(frozen=True, eq=False)
class Task(Generic[Sample]):
    """Samples with their labels and the names of the classes.

    Args:
        samples: N samples of any kind, a sequence or an array whose first axis is the sample.
        labels: int64 [N], each in 0..K-1; or float32 [N, K], of 0 and 1 where a sample has many labels, of real
            numbers for regression.
        names: the K names of the classes, or of the numbers of a regression; all different.

    Raises:
        LabelError: there are not as many labels as samples, a label is outside 0..K-1, or a name occurs twice.

    >>> Task(["a.png", "b.png"], np.array([0, 1]), ("cat", "dog")).num_classes
    2
    """

    samples: Sequence[Sample] | NDArray[Any]
    labels: NDArray[Any]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.labels):
            raise LabelError(
                f"got {len(self.samples)} samples and {len(self.labels)} labels: give one label for each sample"
            )
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise LabelError(
                f"got class names that occur more than once: {', '.join(twice)}. Make them differ"
            )
        if self.labels.ndim == 1:
            self._check_range()
        elif self.labels.ndim != 2 or self.labels.shape[1] != len(self.names):
            raise LabelError(
                f"got labels of shape {list(self.labels.shape)} for {len(self.names)} classes; allowed are "
                f"[N] integers or [N, {len(self.names)}] of 0 and 1"
            )

    def _check_range(self) -> None:
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise LabelError(
                f"got labels of type {self.labels.dtype}; allowed are integers 0..{self.num_classes - 1}"
            )
        outside = (self.labels < 0) | (self.labels >= self.num_classes)
        if outside.any():
            raise LabelError(
                f"got label {self.labels[outside][0]} at sample {int(np.argmax(outside))}; allowed are "
                f"0..{self.num_classes - 1} for the {self.num_classes} class names given"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self.samples)


def take(task: Task[Sample], index: NDArray[np.int64]) -> Task[Sample]:
    """The samples at the positions `index` (int64 [M]), in that order; class names stay.

    >>> take(Task("abc", np.array([0, 1, 1]), ("x", "y")), np.array([2, 0])).samples
    ['c', 'a']
    """
    samples: Any = task.samples
    chosen: Any = samples[index] if isinstance(samples, np.ndarray) else [samples[i] for i in index]
    return Task(chosen, task.labels[index], task.names)
