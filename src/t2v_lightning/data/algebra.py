"""The algebra of tasks: pure functions that make a task from others.

What a sample is (a path, an array, a crop) does not matter here. The functions choose samples and renumber
labels, keep the samples in order, and never open an image.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.errors import LabelError
from t2v_lightning.data.task import Sample, Task, take

LabelMerge = Literal["disjoint", "id", "name"]
"""Which labels of two tasks are the same: none, those with the same number, or those with the same name."""


def select_classes(task: Task[Sample], classes: Sequence[int]) -> Task[Sample]:
    """The samples of some classes, renumbered 0..len(classes)-1 in the order given.

    Raises:
        LabelError: a class is outside 0..K-1 or occurs twice, or there is none.

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
    """The task without the classes that have no sample, so that every label 0..K-1 occurs.

    >>> remap(Task("ab", np.array([3, 1]), ("w", "x", "y", "z"))).names
    ('x', 'z')
    """
    _check_single_label(task)
    return select_classes(task, [int(c) for c in np.unique(task.labels)])


def merge_classes(task: Task[Sample], groups: Mapping[str, Sequence[int]]) -> Task[Sample]:
    """Tells groups of classes apart: the new label of a sample is the position of the group of its class.

    Samples whose class is in no group are left out.

    Raises:
        LabelError: a class is outside 0..K-1 or in two groups, or a group is empty.

    >>> digits = Task("abc", np.array([0, 1, 2]), ("zero", "one", "two"))
    >>> merge_classes(digits, {"even": [0, 2], "odd": [1]}).labels.tolist()
    [0, 1, 0]
    """
    selected = select_classes(task, [c for classes in groups.values() for c in classes])
    for name, classes in groups.items():
        if not classes:
            raise LabelError(f"got group {name!r} without classes: give it one or leave it out")
    group_of_class = np.repeat(np.arange(len(groups)), [len(classes) for classes in groups.values()])
    return Task(selected.samples, group_of_class[selected.labels], tuple(groups))


def split_classes(task: Task[Sample], groups: Mapping[str, Sequence[int]]) -> dict[str, Task[Sample]]:
    """For each group a task that tells the classes inside it apart.

    Raises:
        LabelError: a class is outside 0..K-1 or twice in one group, or a group is empty.

    >>> digits = Task("abc", np.array([0, 1, 2]), ("zero", "one", "two"))
    >>> split_classes(digits, {"even": [0, 2], "odd": [1]})["even"].names
    ('zero', 'two')
    """
    return {name: select_classes(task, classes) for name, classes in groups.items()}


def one_against_rest(task: Task[Sample], number: int) -> Task[Sample]:
    """Tells one class (label 1) from all others (label 0); with many labels per sample, those with it from the rest.

    Raises:
        LabelError: `number` is outside 0..K-1.

    >>> one_against_rest(Task("abc", np.array([0, 1, 2]), ("cat", "dog", "eel")), 1).labels.tolist()
    [0, 1, 0]
    >>> one_against_rest(Task("ab", np.eye(2, dtype=np.float32), ("red", "round")), 0).names
    ('not red', 'red')
    """
    _check_classes(task, [number])
    carries = task.labels == number if task.labels.ndim == 1 else task.labels[:, number] > 0
    name = task.names[number]
    return Task(task.samples, carries.astype(np.int64), (f"not {name}", name))


def join(first: Task[Any], second: Task[Any], labels: LabelMerge = "disjoint") -> Task[Any]:
    """The union: samples of the first task, then of the second; an image of both occurs twice.

    Args:
        first, second: tasks that both have one label per sample, or both have many.
        labels: `"disjoint"` keeps all K1 + K2 classes apart (names that both have get " (1)" and " (2)"); with
            `"id"` classes of the same number, with `"name"` those of the same name are one.

    Raises:
        LabelError: one task has one label per sample and the other many; or, by id, a number has two names.

    >>> birds = Task("ab", np.array([0, 1]), ("crow", "owl"))
    >>> beasts = Task("c", np.array([0]), ("owl",))
    >>> join(birds, beasts).names, join(birds, beasts, labels="name").labels.tolist()
    (('crow', 'owl (1)', 'owl (2)'), [0, 1, 1])
    """
    if first.labels.ndim != second.labels.ndim:
        raise LabelError(
            "got a task with one label per sample and one with many; allowed are two of a kind; "
            "merge_duplicates gives a task many labels per sample"
        )
    names, numbers = _joined_names(first, second, labels)
    samples: Any = [*first.samples, *second.samples]
    if isinstance(first.samples, np.ndarray) and isinstance(second.samples, np.ndarray):
        samples = _joined_arrays(first.samples, second.samples)
    if first.labels.ndim == 1:
        return Task(samples, np.concatenate([first.labels, numbers[second.labels]]), names)
    vectors = np.zeros((len(samples), len(names)), dtype=np.float32)
    vectors[: len(first), : first.num_classes] = first.labels
    vectors[len(first) :, numbers] = second.labels
    return Task(samples, vectors, names)


def merge_duplicates(task: Task[Sample]) -> Task[Sample]:
    """Every sample once, where it first occurs, with all its labels: float32 [N, K] of 0 and 1.

    Samples are the same if they are equal; arrays, if their bytes are.

    >>> twice = Task(["a", "b", "a"], np.array([0, 1, 1]), ("red", "round"))
    >>> merge_duplicates(twice).samples, merge_duplicates(twice).labels.tolist()
    (['a', 'b'], [[1.0, 1.0], [0.0, 1.0]])
    """
    places: dict[Hashable, int] = {}
    place = np.array([places.setdefault(_key(s), len(places)) for s in task.samples], dtype=np.int64)
    firsts = np.unique(place, return_index=True)[1]
    labels = np.zeros((len(places), task.num_classes), dtype=np.float32)
    np.maximum.at(labels, place, _vectors(task))
    return Task(take(task, firsts).samples, labels, task.names)


def intersect(first: Task[Any], second: Task[Any], labels: LabelMerge = "disjoint") -> Task[Any]:
    """The images that both tasks hold, in the order of the first, with the labels of both: float32 [N, K].

    Raises:
        LabelError: as in `join`.

    >>> colours = Task(["a", "b"], np.array([0, 1]), ("red", "blue"))
    >>> shapes = Task(["b", "c"], np.array([0, 0]), ("round",))
    >>> both = intersect(colours, shapes)
    >>> both.samples, both.names, both.labels.tolist()
    (['b'], ('red', 'blue', 'round'), [[0.0, 1.0, 1.0]])
    """
    merged = merge_duplicates(join(first, second, labels))
    common = {_key(s) for s in first.samples} & {_key(s) for s in second.samples}
    return take(merged, np.flatnonzero([_key(sample) in common for sample in merged.samples]))


def align(train: Task[Sample], test: Task[Sample]) -> Task[Sample]:
    """The test split with the classes and class numbers of the train split.

    Test samples of classes that train does not have are left out; with many labels per sample, only these labels are.

    Raises:
        LabelError: the splits have no class in common, or one has one label per sample and the other many.

    >>> train = Task("ab", np.array([0, 1]), ("cat", "dog"))
    >>> test = Task("cde", np.array([0, 1, 2]), ("dog", "eel", "cat"))
    >>> align(train, test).samples, align(train, test).labels.tolist()
    (['c', 'e'], [1, 0])
    """
    if train.labels.ndim != test.labels.ndim:
        raise LabelError(
            "got a split with one label per sample and one with many; allowed are two of a kind; check the "
            "column of labels"
        )
    common = [number for number, name in enumerate(test.names) if name in set(train.names)]
    if not common:
        raise LabelError(
            f"train and test have no class in common: got {', '.join(train.names[:5])} and "
            f"{', '.join(test.names[:5])}. Give the classes of both splits the same names"
        )
    numbers = np.array([train.names.index(test.names[number]) for number in common])
    if test.labels.ndim == 1:
        part = select_classes(test, common)
        return Task(part.samples, numbers[part.labels], train.names)
    vectors = np.zeros((len(test), train.num_classes), dtype=np.float32)
    vectors[:, numbers] = test.labels[:, common]
    return Task(test.samples, vectors, train.names)


def hold_out(task: Task[Sample], every: int = 5) -> tuple[Task[Sample], Task[Sample]]:
    """Train and test split of a task that has none: in each class, every `every`-th sample is a test sample.

    A class of fewer samples than that gives its last one, and a class of one sample none. With many labels per
    sample, classes do not matter, and every `every`-th of all samples is a test sample.

    Raises:
        ValueError: `every` is below 2.

    >>> train, test = hold_out(Task("abcdefg", np.array([0, 0, 0, 0, 0, 1, 1]), ("x", "y")))
    >>> train.samples, test.samples
    (['a', 'b', 'c', 'd', 'f'], ['e', 'g'])
    """
    if type(every) is not int or every < 2:
        raise ValueError(
            f"got every={every!r}; allowed are whole numbers from 2, so that train keeps samples"
        )
    classes = task.labels if task.labels.ndim == 1 else np.zeros(len(task), dtype=np.int64)
    is_test = np.zeros(len(task), dtype=bool)
    for members in (np.flatnonzero(classes == number) for number in np.unique(classes)):
        is_test[members[every - 1 :: every] if len(members) >= every else members[1:][-1:]] = True
    return take(task, np.flatnonzero(~is_test)), take(task, np.flatnonzero(is_test))


def _joined_names(
    first: Task[Any], second: Task[Any], labels: LabelMerge
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the union, and the new number of each class of the second task."""
    if labels == "disjoint":
        shared = set(first.names) & set(second.names)
        ours = [f"{name} (1)" if name in shared else name for name in first.names]
        theirs = [f"{name} (2)" if name in shared else name for name in second.names]
        return (*ours, *theirs), first.num_classes + np.arange(second.num_classes)
    if labels == "id":
        for ours_, theirs_ in zip(first.names, second.names, strict=False):
            if ours_ != theirs_:
                raise LabelError(
                    f"got the names {ours_!r} and {theirs_!r} for one class number; allowed is one; join by name "
                    "or keep the classes disjoint"
                )
        return max(first.names, second.names, key=len), np.arange(second.num_classes)
    if labels == "name":
        names = tuple(dict.fromkeys((*first.names, *second.names)))
        return names, np.array([names.index(name) for name in second.names], dtype=np.int64)
    raise ValueError(f"got labels={labels!r}; allowed are disjoint, id and name")


def _joined_arrays(first: NDArray[Any], second: NDArray[Any]) -> Any:
    same = first.shape[1:] == second.shape[1:] and first.dtype.kind == second.dtype.kind
    return np.concatenate([first, second]) if same else [*first, *second]


def _vectors(task: Task[Any]) -> NDArray[np.float32]:
    if task.labels.ndim == 2:
        return task.labels.astype(np.float32)
    vectors: NDArray[np.float32] = np.eye(task.num_classes, dtype=np.float32)[task.labels]
    return vectors


def _key(sample: Any) -> Hashable:
    """A key that two samples share if they are the same."""
    if isinstance(sample, np.ndarray):
        return sample.shape, sample.dtype.str, sample.tobytes()
    key: Hashable = sample
    return key


def _check_single_label(task: Task[Any]) -> None:
    if task.labels.ndim != 1:
        raise LabelError(
            "got a task with many labels per sample; allowed is one label per sample; one_against_rest makes such "
            "a task of each label"
        )


def _check_classes(task: Task[Any], classes: Sequence[int]) -> None:
    if len(classes) == 0:
        raise LabelError(f"got no classes: give some of 0..{task.num_classes - 1}")
    for position, number in enumerate(classes):
        if not 0 <= number < task.num_classes:
            raise LabelError(f"got class {number}; allowed are 0..{task.num_classes - 1}")
        if number in classes[:position]:
            raise LabelError(f"got class {number} more than once: name each class once")
