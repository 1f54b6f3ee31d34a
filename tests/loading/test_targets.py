"""Where the targets of a dataset come from, what forms they may have, and which are refused."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from labelled import Labelled
from PIL import Image
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import FakeData

from t2v_lightning.loading.selection import check_map_style, select_images
from t2v_lightning.loading.targets import find_targets


def test_labels_are_renumbered_from_zero() -> None:
    task = select_images(Labelled([7, 3, 7, 1000]))
    assert task.targets.tolist() == [1, 0, 1, 2]
    assert task.classes == (3, 7, 1000)
    assert task.num_classes == 3


def test_a_fixed_number_of_classes_keeps_the_labels() -> None:
    task = select_images(Labelled([4, 1, 4]), num_classes=6)
    assert task.targets.tolist() == [4, 1, 4]
    assert task.num_classes == 6
    assert task.weights.tolist() == pytest.approx([0.25, 0.5, 0.25])


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


# --- what is refused -----------------------------------------------------------------------------------------


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([])


class EndlessWithLength(Endless):
    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize(
    "dataset",
    [Endless(), EndlessWithLength(), None, 3, iter([1])],
    ids=lambda dataset: type(dataset).__name__,
)
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
    with pytest.raises(TypeError, match=r"one integer class per image.*likelihood='bernoulli'.*'gaussian'"):
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
        ({"image": 1, "label": 2}, "a dict of image, label"),
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


def test_vector_targets_of_wrong_form() -> None:
    with pytest.raises(TypeError, match=r"one vector per image, got shape \(2, 1, 2\)"):
        select_images(Labelled(torch.zeros(2, 1, 2)), likelihood="gaussian")
    with pytest.raises(ValueError, match="must be finite"):
        select_images(Labelled([[0.0, float("nan")], [1.0, 0.0]]), likelihood="gaussian")
    with pytest.raises(ValueError, match="zeros and ones"):
        select_images(Labelled([[0.0, 0.5], [1.0, 0.0]]), likelihood="bernoulli")
