import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2v_lightning.data.algebra import (
    LabelMerge,
    Task,
    align,
    hold_out,
    intersect,
    join,
    merge_classes,
    merge_duplicates,
    one_against_rest,
    remap,
    select_classes,
    split_classes,
    take,
)
from t2v_lightning.data.errors import LabelError


@st.composite
def tasks(draw: st.DrawFn) -> Task[int]:
    classes = draw(st.integers(1, 8))
    labels = draw(st.lists(st.integers(0, classes - 1), max_size=40))
    names = tuple(f"class {number}" for number in range(classes))
    return Task(list(range(len(labels))), np.array(labels, dtype=np.int64), names)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[Task[int], dict[str, list[int]]]:
    task = draw(tasks())
    order = draw(st.permutations(range(task.num_classes)))
    cuts = sorted(draw(st.sets(st.integers(1, task.num_classes), min_size=1)))
    starts = [0, *cuts[:-1]]
    return task, {f"group {end}": order[start:end] for start, end in zip(starts, cuts, strict=True)}


def named(task: Task[int]) -> dict[int, str]:
    return {sample: task.names[label] for sample, label in zip(task.samples, task.labels, strict=True)}


@given(grouped())
def test_select_keeps_names_and_order(case: tuple[Task[int], dict[str, list[int]]]) -> None:
    task, groups = case
    chosen = next(iter(groups.values()))
    part = select_classes(task, chosen)
    assert part.names == tuple(task.names[c] for c in chosen)
    assert list(part.samples) == [s for s in task.samples if task.labels[s] in chosen]
    assert named(part).items() <= named(task).items()


@given(tasks())
def test_remap_loses_no_sample_and_leaves_no_gap(task: Task[int]) -> None:
    if len(task) == 0:
        with pytest.raises(LabelError, match="got no classes"):
            remap(task)
        return
    mapped = remap(task)
    assert named(mapped) == named(task)
    assert set(mapped.labels.tolist()) == set(range(mapped.num_classes))


@given(grouped())
def test_merge_tells_groups_apart(case: tuple[Task[int], dict[str, list[int]]]) -> None:
    task, groups = case
    merged = merge_classes(task, groups)
    expected = {
        sample: name
        for sample, label in zip(task.samples, task.labels, strict=True)
        for name, classes in groups.items()
        if label in classes
    }
    assert named(merged) == expected
    assert list(merged.samples) == sorted(merged.samples)
    assert merged.names == tuple(groups)


@given(grouped())
def test_split_gives_each_sample_to_one_group(case: tuple[Task[int], dict[str, list[int]]]) -> None:
    task, groups = case
    parts = split_classes(task, groups)
    assert sum(len(part) for part in parts.values()) == len(merge_classes(task, groups))
    for name, part in parts.items():
        assert part.num_classes == len(groups[name])
        assert named(part).items() <= named(task).items()


def test_take_works_on_arrays_and_keeps_their_type() -> None:
    task: Task[np.ndarray] = Task(np.arange(12).reshape(3, 4), np.array([0, 1, 0]), ("a", "b"))
    part = take(task, np.array([2, 0]))
    assert isinstance(part.samples, np.ndarray)
    assert part.samples.tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert part.labels.tolist() == [0, 0]


def test_many_labels_a_sample() -> None:
    labels = np.array([[0, 1], [1, 1], [0, 0]], dtype=np.float32)
    task = Task("abc", labels, ("red", "round"))
    assert task.num_classes == 2
    with pytest.raises(LabelError, match="allowed is one label per sample"):
        select_classes(task, [0])


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (np.array([0, 1, 0]), ("a", "b"), "got 2 samples and 3 labels"),
        (np.array([0, 1]), ("a", "a"), "occur more than once: a"),
        (np.array([0, 2]), ("a", "b"), r"got label 2 at sample 1; allowed are 0\.\.1"),
        (np.array([-1, 0]), ("a", "b"), r"got label -1 at sample 0"),
        (np.array([0.0, 1.0]), ("a", "b"), "got labels of type float64"),
        (np.zeros((2, 3)), ("a", "b"), r"got labels of shape \[2, 3\] for 2 classes"),
    ],
)
def test_bad_tasks_are_errors(labels: np.ndarray, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        Task(["x", "y"], labels, names)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([2], r"got class 2; allowed are 0\.\.1"),
        ([0, 0], "got class 0 more than once"),
        ([], "got no classes"),
    ],
)
def test_bad_choices_of_classes_are_errors(classes: list[int], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        select_classes(Task("xy", np.array([0, 1]), ("a", "b")), classes)


def test_an_empty_group_is_an_error() -> None:
    with pytest.raises(LabelError, match="got group 'none' without classes"):
        merge_classes(Task("xy", np.array([0, 1]), ("a", "b")), {"all": [0, 1], "none": []})


@st.composite
def pictures(draw: st.DrawFn, many: bool | None = None) -> Task[str]:
    """Tasks over a few pictures, which come again within a task and in others; of one label each, or of many."""
    classes = draw(st.lists(st.sampled_from(["red", "blue", "round", "flat"]), unique=True, min_size=1))
    samples = draw(st.lists(st.sampled_from("abcdefgh"), max_size=12))
    if draw(st.booleans()) if many is None else many:
        rows = [
            draw(st.lists(st.integers(0, 1), min_size=len(classes), max_size=len(classes))) for _ in samples
        ]
        labels = np.array(rows, dtype=np.float32).reshape(len(samples), len(classes))
    else:
        labels = np.array([draw(st.integers(0, len(classes) - 1)) for _ in samples], dtype=np.int64)
    return Task(samples, labels, tuple(classes))


def labels_of(task: Task[str]) -> list[tuple[str, frozenset[str]]]:
    """Each sample with the names of its labels."""
    if task.labels.ndim == 1:
        return [(s, frozenset([task.names[n]])) for s, n in zip(task.samples, task.labels, strict=True)]
    return [
        (s, frozenset(task.names[n] for n in np.flatnonzero(row)))
        for s, row in zip(task.samples, task.labels, strict=True)
    ]


@given(pictures(many=False), pictures(many=False))
def test_a_disjoint_union_holds_both_tasks_one_after_the_other(first: Task[str], second: Task[str]) -> None:
    both = join(first, second)
    assert list(both.samples) == [*first.samples, *second.samples]
    assert both.num_classes == first.num_classes + second.num_classes
    ours, theirs = both.labels[: len(first)], both.labels[len(first) :]
    assert np.array_equal(ours, first.labels)
    assert np.array_equal(theirs, second.labels + first.num_classes)
    plain = [name.removesuffix(" (1)").removesuffix(" (2)") for name in both.names]
    assert plain == [*first.names, *second.names]


@given(pictures(many=False), pictures(many=False))
def test_a_union_by_name_keeps_every_name(first: Task[str], second: Task[str]) -> None:
    both = join(first, second, labels="name")
    assert labels_of(both) == labels_of(first) + labels_of(second)
    assert set(both.names) == set(first.names) | set(second.names)
    assert both.names[: first.num_classes] == first.names


@given(pictures(many=True), pictures(many=True), st.sampled_from(["disjoint", "name"]))
def test_a_union_of_many_labels_keeps_them_all(first: Task[str], second: Task[str], how: LabelMerge) -> None:
    both = join(first, second, labels=how)
    assert both.labels.shape == (len(first) + len(second), both.num_classes)
    assert both.labels.sum() == first.labels.sum() + second.labels.sum()
    if how == "name":
        assert labels_of(both) == labels_of(first) + labels_of(second)


@given(tasks(), st.integers(1, 8), st.data())
def test_a_union_by_id_keeps_every_number(first: Task[int], count: int, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, count - 1), max_size=10))
    names = tuple(f"class {number}" for number in range(count))
    second: Task[int] = Task(list(range(len(numbers))), np.array(numbers, dtype=np.int64), names)
    both = join(first, second, labels="id")
    assert both.labels.tolist() == [*first.labels, *numbers]
    assert both.num_classes == max(first.num_classes, count)


@given(pictures())
def test_duplicates_become_one_sample_with_the_labels_of_all(task: Task[str]) -> None:
    merged = merge_duplicates(task)
    assert list(merged.samples) == list(dict.fromkeys(task.samples))
    assert merged.labels.shape == (len(merged), task.num_classes)
    expected: dict[str, frozenset[str]] = {}
    for sample, labels in labels_of(task):
        expected[sample] = expected.get(sample, frozenset()) | labels
    assert dict(labels_of(merged)) == expected
    assert merged.names == task.names
    assert np.array_equal(merge_duplicates(merged).labels, merged.labels)


@given(pictures(many=False), pictures(many=False), st.sampled_from(["disjoint", "name"]))
def test_an_intersection_has_the_pictures_of_both_with_all_their_labels(
    first: Task[str], second: Task[str], how: LabelMerge
) -> None:
    both = intersect(first, second, labels=how)
    assert list(both.samples) == [s for s in dict.fromkeys(first.samples) if s in set(second.samples)]
    union = dict(labels_of(merge_duplicates(join(first, second, labels=how))))
    assert dict(labels_of(both)).items() <= union.items()
    assert all(len(labels) >= (2 if how == "disjoint" else 1) for _, labels in labels_of(both))


@given(pictures(), st.data())
def test_one_class_against_the_rest(task: Task[str], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, task.num_classes - 1))
    binary = one_against_rest(task, number)
    assert list(binary.samples) == list(task.samples)
    assert binary.labels.dtype == np.int64
    assert binary.names[1] == task.names[number]
    carries = [task.names[number] in labels for _, labels in labels_of(task)]
    assert binary.labels.tolist() == [int(one) for one in carries]


@given(pictures(many=False), pictures(many=False))
def test_an_aligned_test_split_has_the_classes_of_train(train: Task[str], test: Task[str]) -> None:
    if not set(train.names) & set(test.names):
        with pytest.raises(LabelError, match="no class in common"):
            align(train, test)
        return
    aligned = align(train, test)
    assert aligned.names == train.names
    assert labels_of(aligned) == [
        (sample, labels) for sample, labels in labels_of(test) if labels <= set(train.names)
    ]


@given(pictures(many=True), pictures(many=True))
def test_an_aligned_split_of_many_labels_keeps_all_samples(train: Task[str], test: Task[str]) -> None:
    if set(train.names) & set(test.names):
        aligned = align(train, test)
        known = set(train.names)
        assert labels_of(aligned) == [(sample, labels & known) for sample, labels in labels_of(test)]


@given(tasks(), st.integers(2, 6))
def test_a_held_out_split_parts_each_class(task: Task[int], every: int) -> None:
    train, test = hold_out(task, every)
    assert sorted([*train.samples, *test.samples]) == list(task.samples)
    assert train.samples == sorted(train.samples)
    assert test.samples == sorted(test.samples)
    assert train.names == test.names == task.names
    assert named(train).items() | named(test).items() == named(task).items()
    for number, count in enumerate(np.bincount(task.labels, minlength=task.num_classes)):
        held = int((test.labels == number).sum())
        assert held == (count // every if count >= every else int(count > 1))
        assert count == 0 or (train.labels == number).any()


def test_arrays_are_joined_as_arrays_and_compared_by_their_pixels() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
    first: Task[np.ndarray] = Task(pixels[:2], np.array([0, 1]), ("x", "y"))
    second: Task[np.ndarray] = Task(pixels[1:], np.array([0, 0]), ("z",))
    both = join(first, second)
    assert isinstance(both.samples, np.ndarray)
    assert np.array_equal(both.samples, pixels[[0, 1, 1, 2]])
    assert merge_duplicates(both).labels.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert np.array_equal(np.asarray(intersect(first, second).samples), pixels[1:2])
    uneven = join(first, Task(np.zeros((1, 5, 5), dtype=np.uint8), np.array([0]), ("w",)))
    assert [sample.shape for sample in uneven.samples] == [(2, 4), (2, 4), (5, 5)]


def test_bad_unions_and_splits_are_errors() -> None:
    one: Task[str] = Task("ab", np.array([0, 1]), ("x", "y"))
    many: Task[str] = Task("ab", np.eye(2, dtype=np.float32), ("x", "y"))
    for combine in (join, align):
        with pytest.raises(LabelError, match="allowed are two of a kind"):
            combine(one, many)
    with pytest.raises(LabelError, match="got the names 'x' and 'z' for one class number"):
        join(one, Task("c", np.array([0]), ("z",)), labels="id")
    with pytest.raises(ValueError, match="got labels='names'; allowed are disjoint, id and name"):
        join(one, one, labels="names")  # type: ignore[arg-type]
    for every in (1, 2.5, "abc"):
        with pytest.raises(ValueError, match=f"got every={every!r}; allowed are whole numbers from 2"):
            hold_out(one, every)  # type: ignore[arg-type]
    with pytest.raises(LabelError, match=r"got class 2; allowed are 0\.\.1"):
        one_against_rest(many, 2)
