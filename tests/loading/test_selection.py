"""Which images count, how much, and in what order."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import FakeData

from t2v_lightning.loading.selection import (
    check_map_style,
    find_targets,
    select_images,
    stratified_order,
    stratified_subset,
)


class Labelled(Dataset[Any]):
    """Labels known without opening an image; opening one is an error."""

    def __init__(self, targets: Any, name: str = "targets") -> None:
        setattr(self, name, targets)
        self.size = len(targets)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("an image was opened")


def labels_of(counts: list[int]) -> list[int]:
    """counts[k] labels k, in no order."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))].tolist()


class_counts = st.lists(st.integers(1, 30), min_size=2, max_size=8)
seeds = st.integers(0, 2**40)


@given(class_counts, seeds)
def test_balanced_weights_give_every_class_the_same(counts: list[int], seed: int) -> None:
    task = select_images(Labelled(labels_of(counts)), seed=seed)
    assert task.num_classes == len(counts)
    assert float(task.weights.sum()) == pytest.approx(1, abs=1e-12)
    for k, count in enumerate(counts):
        mine = task.weights[task.targets == k]
        assert mine.tolist() == pytest.approx([1 / (len(counts) * count)] * count, rel=1e-12)
    assert task.weights.dtype == torch.float64


@given(class_counts, seeds)
def test_plain_weights_give_every_image_the_same(counts: list[int], seed: int) -> None:
    task = select_images(Labelled(labels_of(counts)), balanced=False, seed=seed)
    assert task.weights.tolist() == pytest.approx([1 / sum(counts)] * sum(counts), rel=1e-12)


@given(class_counts, seeds, st.integers(0, 100), st.booleans())
def test_a_subset_is_stratified(counts: list[int], seed: int, extra: int, balanced: bool) -> None:
    labels, k = labels_of(counts), len(counts)
    size = min(k + extra, len(labels))
    task = select_images(Labelled(labels), max_samples=size, balanced=balanced, seed=seed)
    assert len(task) == size == len(task.weights) == len(task.targets)
    assert task.chosen.tolist() == sorted(set(task.chosen.tolist()))
    assert [labels[i] for i in task.chosen.tolist()] == task.targets.tolist()
    assert float(task.weights.sum()) == pytest.approx(1, abs=1e-12)
    taken = task.targets.bincount(minlength=k)
    assert int(taken.min()) >= 1
    if balanced:  # equal numbers, but for classes that have no more
        full = taken == torch.tensor(counts)
        most = int(taken.max())
        assert bool((full | (taken >= most - 1)).all())
        shares = torch.zeros(k, dtype=torch.float64).index_add(0, task.targets, task.weights)
        assert shares.tolist() == pytest.approx([1 / k] * k, rel=1e-12)
    else:  # shares of the whole, to within the rounding of whole images and the first one of every class
        ideal = size * torch.tensor(counts).double() / len(labels)
        slack = 1 + float(torch.tensor(counts).max()) * k / len(labels)
        assert bool(((taken - ideal).abs() <= slack).all())


@pytest.mark.parametrize(
    ("balanced", "expected"), [(True, [20, 20, 10]), (False, [36, 12, 2])], ids=["balanced", "in proportion"]
)
def test_a_subset_of_uneven_classes(balanced: bool, expected: list[int]) -> None:
    labels = labels_of([180, 60, 10])
    for seed in range(5):
        taken = select_images(
            Labelled(labels), max_samples=50, balanced=balanced, seed=seed
        ).targets.bincount()
        assert (taken - torch.tensor(expected)).abs().max() <= 1


def test_every_image_is_chosen_as_often_as_its_fellows() -> None:
    """No favour for the first or last of a class."""
    strata = torch.tensor([0] * 6 + [1] * 12)
    often = torch.zeros(18)
    for seed in range(600):
        often[stratified_subset(strata, 8, True, seed)] += 1
    for stratum, expected in ((0, 400), (1, 200)):  # four of six, four of twelve
        mine = often[strata == stratum]
        assert bool(((mine - expected).abs() < 5 * np.sqrt(600 * 0.25)).all())


@given(class_counts, seeds)
def test_every_prefix_of_the_order_holds_the_classes_in_proportion(counts: list[int], seed: int) -> None:
    strata = torch.tensor(labels_of(counts))
    order = stratified_order(strata, seed)
    assert sorted(order.tolist()) == list(range(len(strata)))
    total, k = len(strata), len(counts)
    seen = torch.nn.functional.one_hot(strata[order], k).cumsum(0)
    share = torch.tensor(counts).double() / total
    ideal = torch.arange(1, total + 1)[:, None] * share
    assert bool(((seen - ideal).abs() <= 1 + share * k + 1e-9).all())


@given(class_counts, seeds)
def test_the_same_seed_gives_the_same_choice_and_order(counts: list[int], seed: int) -> None:
    dataset, size = Labelled(labels_of(counts)), max(len(counts), sum(counts) // 2)
    one, two = (select_images(dataset, max_samples=size, seed=seed) for _ in range(2))
    assert torch.equal(one.chosen, two.chosen)
    assert torch.equal(one.visiting_order(seed), two.visiting_order(seed))
    assert torch.equal(one.draws(50, seed), two.draws(50, seed))


def test_another_seed_gives_another_choice_and_order() -> None:
    dataset = Labelled(labels_of([50, 50]))
    one, two = (select_images(dataset, max_samples=40, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.chosen, two.chosen)
    assert not torch.equal(one.visiting_order(0), one.visiting_order(1))
    assert not torch.equal(one.draws(50, 0), one.draws(50, 1))


def test_choosing_does_not_touch_the_global_random_numbers() -> None:
    state = torch.get_rng_state()
    task = select_images(Labelled(labels_of([9, 9])), max_samples=10)
    task.visiting_order(0)
    task.draws(10, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_are_balanced_and_with_replacement() -> None:
    task = select_images(Labelled(labels_of([90, 10])))
    draws = task.draws(20_000, 0)
    assert draws.dtype == torch.int64
    assert 0 <= int(draws.min()) <= int(draws.max()) < 100
    per_class = task.targets[draws].bincount()
    assert abs(int(per_class[0]) - 10_000) < 5 * np.sqrt(5000)
    rare = draws[task.targets[draws] == 1].bincount(minlength=100)[task.targets == 1]
    assert bool(((rare - 1000).abs() < 5 * np.sqrt(1000)).all())


def test_labels_are_renumbered_from_zero() -> None:
    task = select_images(Labelled([7, -3, 7, 1000]))
    assert task.targets.tolist() == [1, 0, 1, 2]
    assert task.classes == (-3, 7, 1000)
    assert task.num_classes == 3


def test_a_fixed_number_of_classes_keeps_the_labels() -> None:
    task = select_images(Labelled([4, 1, 4]), num_classes=6)
    assert task.targets.tolist() == [4, 1, 4]
    assert task.num_classes == 6
    assert task.weights.tolist() == pytest.approx([0.25, 0.5, 0.25])


def test_two_samples_a_class_and_even_one() -> None:
    task = select_images(Labelled([0, 0, 1, 1]))
    assert task.weights.tolist() == [0.25] * 4
    assert len(select_images(Labelled([0, 1]))) == 2


# --- where targets come from ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["targets", "labels"])
@pytest.mark.parametrize(
    "form",
    [list, tuple, np.array, torch.tensor, lambda v: torch.tensor(v, dtype=torch.uint8),
     lambda v: [torch.tensor(x) for x in v], lambda v: [np.int32(x) for x in v], lambda v: torch.tensor(v)[:, None]],
    ids=["list", "tuple", "numpy", "tensor", "bytes", "tensors", "numpy numbers", "column"],
)  # fmt: skip
def test_stored_labels_are_used_and_no_image_is_opened(name: str, form: Callable[[Any], Any]) -> None:
    task = select_images(Labelled(form([2, 0, 2, 1]), name))
    assert task.targets.tolist() == [2, 0, 2, 1]
    assert task.targets.dtype == torch.int64


def test_labels_of_other_length_are_not_the_samples_labels() -> None:
    """`labels` may be class names."""

    class Named(Labelled):
        labels = ("cat", "dog")

        def __init__(self) -> None:
            super().__init__([0, 1, 1], "hidden")

        def __getitem__(self, index: int) -> Any:
            return torch.zeros(1), self.hidden[index]  # type: ignore[attr-defined]

    assert find_targets(Named()) == [0, 1, 1]


def test_without_stored_labels_every_item_is_read_once(caplog: pytest.LogCaptureFixture) -> None:
    items = [(torch.zeros(1), i % 3) for i in range(7)]
    with caplog.at_level(logging.INFO):
        assert select_images(items).targets.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert "all 7 items are read once" in caplog.text


def test_parts_and_joins_of_datasets() -> None:
    whole = Labelled([5, 6, 5, 6, 7])
    part = Subset(whole, [4, 0, 1])
    assert find_targets(part) == [7, 5, 6]
    assert find_targets(Subset(part, torch.tensor([2, 0]).tolist())) == [6, 7]
    assert find_targets(ConcatDataset([part, whole])) == [7, 5, 6, 5, 6, 5, 6, 7]
    tensors = TensorDataset(torch.zeros(3, 2), torch.tensor([1, 0, 1]))
    assert select_images(tensors).targets.tolist() == [1, 0, 1]
    assert select_images(ConcatDataset([tensors, whole])).classes == (0, 1, 5, 6, 7)


@pytest.mark.parametrize("stored", [[0, 1, 2, 3], torch.tensor([0, 1, 2, 3])], ids=["list", "tensor"])
def test_the_datasets_target_transform_counts(stored: Any) -> None:
    """In torchvision `targets` holds what the transform is applied to."""
    dataset = Labelled(stored)
    dataset.target_transform = lambda y: {0: 8, 1: 9, 2: 8, 3: 9}[y]  # type: ignore[attr-defined]
    assert select_images(dataset).classes == (8, 9)
    assert select_images(Subset(dataset, [1, 0])).targets.tolist() == [1, 0]


def test_a_torchvision_dataset_is_read_by_its_items() -> None:
    dataset = FakeData(size=12, image_size=(3, 4, 4), num_classes=3, target_transform=lambda y: y + 10)
    task = select_images(dataset)
    assert [dataset[i][1] for i in range(12)] == [task.classes[t] for t in task.targets.tolist()]


# --- the other likelihoods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_vector_targets(likelihood: Any) -> None:
    targets = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0]])
    task = select_images(Labelled(targets), likelihood=likelihood)
    assert task.num_classes == 3
    assert task.classes == ()
    assert torch.equal(task.targets, targets.float())
    assert task.weights.tolist() == [0.25] * 4
    assert sorted(task.visiting_order(3).tolist()) == [0, 1, 2, 3]
    few = select_images(Labelled(targets), likelihood=likelihood, max_samples=2, seed=1)
    assert len(few) == 2
    assert torch.equal(few.targets, targets[few.chosen].float())
    assert few.weights.tolist() == [0.5] * 2


def test_one_number_an_image_is_a_vector_of_one() -> None:
    task = select_images(Labelled([0.5, -1.25, 3.0]), likelihood="gaussian")
    assert task.targets.tolist() == [[0.5], [-1.25], [3.0]]
    assert task.num_classes == 1


def test_a_random_subset_of_vector_targets_is_not_the_first_ones() -> None:
    targets = torch.randn(100, 2)
    chosen = select_images(Labelled(targets), likelihood="gaussian", max_samples=10).chosen
    assert chosen.tolist() != list(range(10))


# --- bad input -----------------------------------------------------------------------------------------------


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([])


class EndlessWithLength(Endless):
    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize("dataset", [Endless(), EndlessWithLength(), None, 3, iter([1])], ids=repr)
def test_datasets_that_are_not_map_style(dataset: Any) -> None:
    with pytest.raises(TypeError, match=rf"must be map-style.*got {type(dataset).__name__}"):
        check_map_style(dataset)
    with pytest.raises(TypeError, match="must be map-style"):
        select_images(dataset)


def test_an_empty_dataset() -> None:
    with pytest.raises(ValueError, match="the dataset is empty"):
        select_images([])


def test_one_class_only() -> None:
    with pytest.raises(
        ValueError, match="all 3 samples carry the one label 4; a task needs at least two classes"
    ):
        select_images(Labelled([4, 4, 4]))


@pytest.mark.parametrize(
    "targets",
    [[0.0, 1.0], torch.tensor([0.0, 1.0]), np.array([0.5, 1]), [[0, 1], [1, 0]], torch.eye(2)],
    ids=repr,
)
def test_softmax_targets_that_are_not_one_integer_each(targets: Any) -> None:
    with pytest.raises(TypeError, match=r"one integer class an image.*likelihood='bernoulli'.*'gaussian'"):
        select_images(Labelled(targets))


@pytest.mark.parametrize(
    "targets", [["cat", "dog"], [None, None], [{"a": 1}, {"a": 2}], [[0, 1], [0]]], ids=repr
)
def test_targets_that_are_no_numbers_of_one_shape(targets: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot be read as numbers of one shape; the first is"):
        select_images(Labelled(targets))


@pytest.mark.parametrize(
    ("item", "got"),
    [
        (torch.zeros(3, 4, 4), r"a Tensor of shape \(3, 4, 4\)"),
        ((torch.zeros(3, 4, 4),), "a tuple of 1"),
        ((torch.zeros(3, 4, 4), 1, "path"), "a tuple of 3"),
        ({"image": 1, "label": 2}, "a dict"),
        (Image.new("RGB", (2, 2)), "a Image"),
    ],
    ids=["tensor", "one", "three", "dict", "image"],
)
def test_a_dataset_without_labels(item: Any, got: str) -> None:
    with pytest.raises(TypeError, match=rf"item 0 of the dataset is {got}, not a pair \(image, target\)"):
        select_images([item, item])


def test_labels_beyond_the_head() -> None:
    with pytest.raises(ValueError, match=r"labels range over 0\.\.5 but the head has 5 outputs \(0\.\.4\)"):
        select_images(Labelled([0, 5]), num_classes=5)
    with pytest.raises(ValueError, match=r"labels range over -1\.\.2"):
        select_images(Labelled([-1, 2]), num_classes=5)


@pytest.mark.parametrize("balanced", [True, False])
def test_fewer_images_than_classes(balanced: bool) -> None:
    with pytest.raises(ValueError, match="max_samples=2 cannot hold all 3 classes"):
        select_images(Labelled([0, 1, 2]), max_samples=2, balanced=balanced)


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_no_images_at_all(likelihood: Any) -> None:
    with pytest.raises(ValueError, match="max_samples=0"):
        select_images(Labelled([0, 1]), max_samples=0, likelihood=likelihood)


def test_vector_targets_of_wrong_form() -> None:
    with pytest.raises(TypeError, match=r"one vector an image, got shape \(2, 1, 2\)"):
        select_images(Labelled(torch.zeros(2, 1, 2)), likelihood="gaussian")
    with pytest.raises(ValueError, match="must be finite"):
        select_images(Labelled([[0.0, float("nan")], [1.0, 0.0]]), likelihood="gaussian")
    with pytest.raises(ValueError, match="zeros and ones"):
        select_images(Labelled([[0.0, 0.5], [1.0, 0.0]]), likelihood="bernoulli")


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.integers(0, 3))
def test_any_integer_labels_give_a_task_or_a_clear_error(labels: list[int], seed: int) -> None:
    dataset = Labelled(labels)
    if len(set(labels)) < 2:
        with pytest.raises(ValueError, match="one label"):
            select_images(dataset, seed=seed)
        return
    task = select_images(dataset, seed=seed)
    targets: Tensor = task.targets
    assert [task.classes[t] for t in targets.tolist()] == labels
    assert float(task.weights.sum()) == pytest.approx(1, abs=1e-12)
