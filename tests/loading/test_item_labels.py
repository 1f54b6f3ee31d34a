"""The label that counts is the one that an item carries; a list that the dataset keeps is a shortcut."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_fits import EXACT, Plain, quietly, relative, run_module, task
from small_probe import small_probe
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, default_collate
from torchvision.datasets import CIFAR10, ImageFolder, VisionDataset
from tracked_training import Somebodys, loader, train

from t2v_lightning import Task2Vec, Task2VecCallback, embed
from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.loading.selection import select_images
from t2v_lightning.loading.targets import find_targets, targets_of_items

ITEMS = task(24)
IMAGES = torch.stack([image for image, _ in ITEMS])
STORED = [i % 6 for i in range(24)]


class Ten(Dataset[Any]):
    """Six classes, in a list and in the items alike."""

    def __init__(self, targets: Any = STORED) -> None:
        self.targets, self.values = targets, list(targets)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> Any:
        return IMAGES[i], self.values[i]


def coarse(y: Any) -> int:
    return int(y > 2)


class Animal(Ten):
    def __getitem__(self, i: int) -> Any:
        image, y = super().__getitem__(i)
        return image, coarse(y)


class AnimalSubset(Subset[Any]):
    def __getitem__(self, i: Any) -> Any:
        image, y = super().__getitem__(i)
        return image, coarse(y)

    def __getitems__(self, indices: list[int]) -> Any:
        return [self[i] for i in indices]


class AnimalJoin(ConcatDataset[Any]):
    def __getitem__(self, i: int) -> Any:
        image, y = super().__getitem__(i)
        return image, coarse(y)


class AnimalTensors(TensorDataset):
    def __getitem__(self, i: int) -> Any:
        image, y = super().__getitem__(i)
        return image, coarse(y)


class Wrapper(Dataset[Any]):
    """Gives away the list of what it wraps."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, i: int) -> Any:
        image, y = self.inner[i]
        return image, coarse(y)


class Loaded(Ten):
    """Applies its target transform to the list as it loads it."""

    def __init__(self) -> None:
        self.target_transform = coarse
        super().__init__([self.target_transform(y) for y in STORED])


class Both(VisionDataset):
    def __init__(self) -> None:
        super().__init__("", transforms=lambda image, y: (image, coarse(y)))
        self.targets = STORED

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> Any:
        assert self.transforms is not None
        return self.transforms(IMAGES[i], self.targets[i])


OTHER_LABELS: dict[str, Callable[[], Any]] = {
    "subclass": Animal,
    "subset": lambda: AnimalSubset(Ten(), range(24)),
    "join": lambda: AnimalJoin([Subset(Ten(), range(12)), Subset(Ten(), range(12, 24))]),
    "tensors": lambda: AnimalTensors(IMAGES, torch.tensor(STORED)),
    "wrapper": lambda: Wrapper(Ten()),
    "transformed as it loads": Loaded,
    "transforms": Both,
    "inside a subset": lambda: Subset(Animal(), range(24)),
    "inside a join": lambda: ConcatDataset([Subset(Animal(), range(12)), Subset(Animal(), range(12, 24))]),
}


@pytest.mark.parametrize("case", OTHER_LABELS)
def test_items_with_other_labels_than_the_list_count(case: str, caplog: pytest.LogCaptureFixture) -> None:
    pairs = [(image, coarse(y)) for image, y in zip(IMAGES, STORED, strict=True)]
    expected = embed(pairs, small_probe(), progress=False, **EXACT)
    with caplog.at_level(logging.WARNING):
        embedding = embed(OTHER_LABELS[case](), small_probe(), progress=False, **EXACT)
    assert embedding.meta["classes"] == [0, 1]
    assert relative(embedding, expected) < 1e-9
    assert "has another label than its `targets` or `labels` say" in caplog.text


@pytest.mark.parametrize("run", ["embed", "fit"])
def test_a_datamodule_and_a_trainer_read_them_too(run: str) -> None:
    embedding = run_module(Task2Vec(small_probe(), **EXACT), Plain(Animal()), run)
    assert embedding.meta["classes"] == [0, 1]
    assert embedding.meta["head"]["accuracy"] <= 1


def test_a_training_run_reads_them_too() -> None:
    class Single(Animal):
        def __getitem__(self, i: int) -> Any:
            image, y = super().__getitem__(i)
            return image.float(), y

    tracker = Task2VecCallback(head="lbfgs")
    train(Somebodys(), [tracker], 1, loader(Single()))
    assert tracker.embedding is not None
    assert tracker.embedding.meta["classes"] == [0, 1]
    assert tracker.embedding.meta["samples"] == 24


def test_an_image_folder_whose_samples_were_edited(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        for k in range(4):
            Image.new("L", (8, 8), k * 20).save(tmp_path / name / f"{k}.png")
    folder = ImageFolder(str(tmp_path), transform=lambda image: torch.zeros(1, 8, 8))
    folder.samples = [(path, int(y > 1)) for path, y in folder.samples]
    targets = targets_of_items(folder, get_likelihood("softmax"))
    assert targets.tolist() == [0] * 8 + [1] * 4


def test_a_list_that_agrees_is_believed_after_a_few_items() -> None:
    class Counts(Ten):
        read = 0

        def __getitem__(self, i: int) -> Any:
            Counts.read += 1
            return super().__getitem__(i % 24)

    dataset = Counts([i % 6 for i in range(24)] * 50)
    targets = targets_of_items(dataset, get_likelihood("softmax"))
    assert targets.tolist() == dataset.targets
    assert Counts.read <= 16


def test_comparing_does_not_touch_the_global_random_numbers() -> None:
    class Noisy(Ten):
        def __getitem__(self, i: int) -> Any:
            return torch.rand(3), self.values[i]

    state = torch.get_rng_state()
    targets_of_items(Noisy(), get_likelihood("softmax"))
    assert torch.equal(torch.get_rng_state(), state)


# --- an item that differs where the few did not ----------------------------------------------------------------


class OneOff(Ten):
    """Item 22, which is none of the few, carries another label than the list."""

    def __init__(self) -> None:
        super().__init__([i % 3 for i in range(24)])

    def __getitem__(self, i: int) -> Any:
        return IMAGES[i], 2 if i == 22 else self.values[i]


MESSAGE = "item 22 of the dataset carries the label 2, but 1 was found for it before.*give a dataset without"


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"method": "variational", "epochs": 1}])
def test_a_rare_difference_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=MESSAGE):
        embed(OneOff(), small_probe(), progress=False, head="lbfgs", **options)


def test_a_rare_difference_is_an_error_of_a_trainer_with_somebodys_collate_function() -> None:
    batches = DataLoader(OneOff(), batch_size=5, collate_fn=lambda items: tuple(default_collate(items)))
    with pytest.raises(ValueError, match=MESSAGE):
        quietly(precision="64-true").fit(Task2Vec(small_probe(), head="lbfgs"), batches)


def test_only_chosen_items_must_agree() -> None:
    kept = Task2Vec(small_probe(), max_samples=3, head="lbfgs").embed(OneOff(), progress=False)
    assert kept.meta["samples"] == 3


def test_labels_that_change_from_one_reading_to_the_next_are_an_error() -> None:
    class Fickle(Ten):
        targets = None  # type: ignore[assignment]

        def __init__(self) -> None:
            self.values, self.turn = STORED, 0

        def __getitem__(self, i: int) -> Any:
            self.turn += 1
            return IMAGES[i], (self.values[i] + self.turn // 24) % 6

    with pytest.raises(ValueError, match="must not change from one reading to the next"):
        embed(Fickle(), small_probe(), progress=False, head="lbfgs")


@pytest.mark.parametrize("own", ["name", None, {"boxes": 3}])
def test_items_whose_targets_are_no_numbers_are_labelled_by_the_list(own: Any) -> None:
    class Named(Ten):
        def __getitem__(self, i: int) -> Any:
            return IMAGES[i], own

    assert embed(Named(), small_probe(), progress=False, head="lbfgs").meta["num_classes"] == 6


def test_vectors_and_real_numbers_are_compared_too() -> None:
    class Real(Ten):
        def __getitem__(self, i: int) -> Any:
            return IMAGES[i], np.float32(self.values[i]) / 7

    class Off(Real):
        def __getitem__(self, i: int) -> Any:
            image, y = super().__getitem__(i)
            return image, y + (0.5 if i == 22 else 0)

    gaussian = get_likelihood("gaussian")
    stored = [float(i % 3) / 7 for i in range(24)]
    real, off = Real([i % 3 for i in range(24)]), Off([i % 3 for i in range(24)])
    real.targets = off.targets = stored
    assert torch.equal(targets_of_items(real, gaussian)[:, 0], torch.tensor(stored))
    with pytest.raises(ValueError, match=r"item 22 .* carries the label"):
        embed(off, small_probe(), progress=False, likelihood="gaussian", head="lbfgs")


# --- by position -----------------------------------------------------------------------------------------------

INDICES: dict[str, list[int]] = {
    "shuffled": torch.randperm(24, generator=torch.Generator().manual_seed(3)).tolist(),
    "filtered": list(range(100, 148, 2)),
}


class Framed(Dataset[Any]):
    """Labels in a column of a data frame, images by their place in it."""

    def __init__(self, index: list[int], images: Tensor = IMAGES) -> None:
        self.targets, self.images = pd.Series([y for _, y in ITEMS], index=index), images

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Any:
        return self.images[i], int(self.targets.iloc[i])


@pytest.mark.parametrize("case", INDICES)
@pytest.mark.parametrize("inside", ["alone", "subset", "join"])
def test_a_series_is_read_by_position(case: str, inside: str) -> None:
    dataset: Any = Framed(INDICES[case])
    part = list(range(24))
    if inside == "subset":
        part = list(range(20, 0, -1))
        dataset = Subset(dataset, part)
    if inside == "join":
        dataset, part = ConcatDataset([dataset, dataset]), part * 2
    assert list(find_targets(dataset)) == [ITEMS[i][1] for i in part]
    expected = embed([ITEMS[i] for i in part], small_probe(), progress=False, **EXACT)
    assert relative(embed(dataset, small_probe(), progress=False, **EXACT), expected) < 1e-9


@pytest.mark.parametrize("case", INDICES)
def test_a_series_is_read_by_position_in_a_training_run(case: str) -> None:
    found = []
    for data in (Framed(INDICES[case], IMAGES.float()), [(x.float(), y) for x, y in ITEMS]):
        tracker = Task2VecCallback(dataset=data, network="net", head="lbfgs")
        train(Somebodys(), [tracker], 1)
        assert tracker.embedding is not None
        found.append(tracker.embedding)
    np.testing.assert_allclose(found[0].fisher, found[1].fisher, rtol=1e-6)


@pytest.mark.parametrize("targets", [dict.fromkeys(range(24), 5), set(range(24)), "x" * 24, torch.tensor(3)])
def test_what_has_no_positions_is_not_taken_for_labels(targets: Any) -> None:
    dataset = Ten()
    dataset.targets = targets
    assert find_targets(dataset) == STORED


def test_only_the_part_of_a_dataset_without_labels_is_read() -> None:
    class Some(list[Any]):
        def __getitem__(self, i: Any) -> Any:
            assert i in (2, 4)
            return super().__getitem__(i)

    assert find_targets(Subset(Some((x, i) for i, x in enumerate(IMAGES)), [4, 2])) == [4, 2]


# --- missing labels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            [0, 1, -1, -1, 2],
            r"2 of 5 labels are negative \(-1 is the lowest\).*Subset, or number the classes",
        ),
        (torch.tensor([0, 1, -100]), r"1 of 3 labels are negative \(-100"),
        (pd.Series([0, 1, None]), r"1 of 3 targets are missing \(NaN or None\); leave these out"),
        ([0, None, 1, None], "2 of 4 targets are missing"),
        (pd.Series([0, 1, None], dtype="Int64"), "1 of 3 targets are missing"),
        (np.array([0, np.nan, 1, 1], np.float32), "1 of 4 targets are missing"),
    ],
    ids=["unlabelled", "ignored", "series", "none", "nullable", "array"],
)
def test_missing_labels_are_refused_and_counted(labels: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        select_images(Ten(labels))


def test_missing_numbers_are_counted() -> None:
    with pytest.raises(ValueError, match="1 of 3 targets are missing"):
        select_images(Ten([0.5, float("nan"), 1.5]), likelihood="gaussian")


def test_minus_one_and_one_alone_are_two_classes() -> None:
    assert select_images(Ten([-1, 1, 1, -1])).classes == (-1, 1)


def test_missing_labels_may_be_left_out() -> None:
    dataset = Ten([*STORED[:20], -1, -1, -1, -1])
    labelled = Subset(dataset, [i for i, y in enumerate(dataset.values) if y >= 0])
    assert len(select_images(labelled)) == 20


def test_a_subclass_of_a_torchvision_dataset_that_gives_other_labels() -> None:
    class Vehicles(CIFAR10):
        def __init__(self) -> None:
            self.data = np.zeros((10, 4, 4, 3), np.uint8)
            self.targets, self.transform, self.target_transform = list(range(10)), None, None

        def __getitem__(self, index: int) -> Any:
            image, y = super().__getitem__(index)
            return image, int(y in (0, 1, 8, 9))

    expected = [1, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert targets_of_items(Vehicles(), get_likelihood("softmax")).tolist() == expected
