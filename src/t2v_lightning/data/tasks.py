"""Tasks as values, and the pure functions that make one task out of another.

A task is (samples, labels, names). What a sample is (a path, an array, a crop) does not matter here: the
functions below choose samples and renumber labels, keep the samples' order, and never open an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.errors import LabelError

__all__ = ["Task", "merge_classes", "remap", "select_classes", "split_classes", "take"]

Sample = TypeVar("Sample")


@dataclass(frozen=True, eq=False)
class Task(Generic[Sample]):
    """Samples with their labels and the names of the classes.

    Args:
        samples: N samples of any kind, a sequence or an array whose first axis is the sample.
        labels: int64 [N], each in 0..K-1; or float32 [N, K] of 0 and 1 for tasks of many labels a sample.
        names: the K class names, all different.

    Raises:
        LabelError: numbers of samples and labels differ, a label is outside 0..K-1, a name comes twice.

    >>> Task(["a.png", "b.png"], np.array([0, 1]), ("cat", "dog")).num_classes
    2
    """

    samples: Sequence[Sample] | NDArray[Any]
    labels: NDArray[Any]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.labels):
            raise LabelError(
                f"Got {len(self.samples)} samples and {len(self.labels)} labels: give one label a sample."
            )
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise LabelError(f"Class names must differ, but these come more than once: {', '.join(twice)}.")
        if self.labels.ndim == 1:
            self._check_range()
        elif self.labels.ndim != 2 or self.labels.shape[1] != len(self.names):
            raise LabelError(
                f"Got labels of shape {list(self.labels.shape)} for {len(self.names)} classes: allowed are "
                f"[N] integers or [N, {len(self.names)}] of 0 and 1."
            )

    def _check_range(self) -> None:
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise LabelError(
                f"Got labels of type {self.labels.dtype}: allowed are integers 0..{self.num_classes - 1}."
            )
        outside = (self.labels < 0) | (self.labels >= self.num_classes)
        if outside.any():
            raise LabelError(
                f"Got label {self.labels[outside][0]} at sample {int(np.argmax(outside))}: allowed are "
                f"0..{self.num_classes - 1} for the {self.num_classes} class names given."
            )

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self.samples)


def take(task: Task[Sample], index: NDArray[np.int64]) -> Task[Sample]:
    """The samples at the positions ``index`` (int64 [M]), in that order; class names stay.

    >>> take(Task("abc", np.array([0, 1, 1]), ("x", "y")), np.array([2, 0])).samples
    ['c', 'a']
    """
    samples: Any = task.samples
    chosen: Any = samples[index] if isinstance(samples, np.ndarray) else [samples[i] for i in index]
    return Task(chosen, task.labels[index], task.names)


def select_classes(task: Task[Sample], classes: Sequence[int]) -> Task[Sample]:
    """The samples of some classes, renumbered 0..len(classes)-1 in the order given.

    Raises:
        LabelError: a class outside 0..K-1, or named twice, or none at all.

    >>> part = select_classes(Task("abcd", np.array([0, 2, 1, 2]), ("x", "y", "z")), [2, 0])
    >>> part.samples, part.labels.tolist(), part.names
    (['a', 'b', 'd'], [1, 0, 0], ('z', 'x'))
    """
    _check_single_label(task)
    _check_classes(task, classes)
    renumber = np.full(task.num_classes, -1, dtype=np.int64)
    renumber[list(classes)] = np.arange(len(classes))
    index = np.flatnonzero(renumber[task.labels] >= 0)
    samples = take(task, index).samples
    return Task(samples, renumber[task.labels[index]], tuple(task.names[c] for c in classes))


def remap(task: Task[Sample]) -> Task[Sample]:
    """The same samples with the classes that have none left out, so that labels are 0..K-1 without gaps.

    >>> remap(Task("ab", np.array([3, 1]), ("w", "x", "y", "z"))).names
    ('x', 'z')
    """
    _check_single_label(task)
    return select_classes(task, [int(c) for c in np.unique(task.labels)])


def merge_classes(task: Task[Sample], groups: Mapping[str, Sequence[int]]) -> Task[Sample]:
    """Tell groups of classes apart: a sample's new label is the position of its class's group.

    Samples whose class is in no group are left out.

    Raises:
        LabelError: a class outside 0..K-1, or in two groups, or an empty group.

    >>> digits = Task("abc", np.array([0, 1, 2]), ("zero", "one", "two"))
    >>> merge_classes(digits, {"even": [0, 2], "odd": [1]}).labels.tolist()
    [0, 1, 0]
    """
    selected = select_classes(task, [c for classes in groups.values() for c in classes])
    for name, classes in groups.items():
        if not classes:
            raise LabelError(f"Group {name!r} has no classes: give it one or leave it out.")
    group_of_class = np.repeat(np.arange(len(groups)), [len(classes) for classes in groups.values()])
    return Task(selected.samples, group_of_class[selected.labels], tuple(groups))


def split_classes(task: Task[Sample], groups: Mapping[str, Sequence[int]]) -> dict[str, Task[Sample]]:
    """One task a group, each telling the classes inside that group apart.

    Raises:
        LabelError: a class outside 0..K-1, or twice in one group, or an empty group.

    >>> digits = Task("abc", np.array([0, 1, 2]), ("zero", "one", "two"))
    >>> split_classes(digits, {"even": [0, 2], "odd": [1]})["even"].names
    ('zero', 'two')
    """
    return {name: select_classes(task, classes) for name, classes in groups.items()}


def _check_single_label(task: Task[Any]) -> None:
    if task.labels.ndim != 1:
        raise LabelError(
            "Got a task of many labels a sample: choosing and grouping classes needs one label a sample."
        )


def _check_classes(task: Task[Any], classes: Sequence[int]) -> None:
    if len(classes) == 0:
        raise LabelError(f"Got no classes: choose some of 0..{task.num_classes - 1}.")
    for position, number in enumerate(classes):
        if not 0 <= number < task.num_classes:
            raise LabelError(f"Got class {number}: allowed are 0..{task.num_classes - 1}.")
        if number in classes[:position]:
            raise LabelError(f"Got class {number} more than once: name each class once.")
