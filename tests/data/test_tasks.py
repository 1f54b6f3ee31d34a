import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2v_lightning.data.errors import LabelError
from t2v_lightning.data.tasks import Task, merge_classes, remap, select_classes, split_classes, take


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
        with pytest.raises(LabelError, match="Got no classes"):
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
    with pytest.raises(LabelError, match="needs one label a sample"):
        select_classes(task, [0])


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (np.array([0, 1, 0]), ("a", "b"), "Got 2 samples and 3 labels"),
        (np.array([0, 1]), ("a", "a"), "come more than once: a"),
        (np.array([0, 2]), ("a", "b"), r"Got label 2 at sample 1: allowed are 0\.\.1"),
        (np.array([-1, 0]), ("a", "b"), r"Got label -1 at sample 0"),
        (np.array([0.0, 1.0]), ("a", "b"), "Got labels of type float64"),
        (np.zeros((2, 3)), ("a", "b"), r"Got labels of shape \[2, 3\] for 2 classes"),
    ],
)
def test_bad_tasks_are_errors(labels: np.ndarray, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        Task(["x", "y"], labels, names)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([2], r"Got class 2: allowed are 0\.\.1"),
        ([0, 0], "Got class 0 more than once"),
        ([], "Got no classes"),
    ],
)
def test_bad_choices_of_classes_are_errors(classes: list[int], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        select_classes(Task("xy", np.array([0, 1]), ("a", "b")), classes)


def test_an_empty_group_is_an_error() -> None:
    with pytest.raises(LabelError, match="Group 'none' has no classes"):
        merge_classes(Task("xy", np.array([0, 1]), ("a", "b")), {"all": [0, 1], "none": []})
