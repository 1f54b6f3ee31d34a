"""MNIST, CIFAR and their like, against torchvision's readers of the same files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import replicas
import torchvision.datasets as tv

from t2v_lightning.data import TaskDataModule, get_datamodule
from t2v_lightning.data.errors import UnknownTaskError


@pytest.fixture(autouse=True)
def _replicas_pass_for_true(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tv.cifar, tv.stl10, tv.svhn):
        monkeypatch.setattr(module, "check_integrity", lambda *args: True)


def opened(name: str, **options: Any) -> TaskDataModule:
    datamodule = get_datamodule(name, **options)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def assert_same(ours: Any, theirs: Any, shift: int = 0, transpose: bool = False) -> None:
    assert len(ours) == len(theirs)
    for index in range(0, len(ours), 7):
        image, label = ours[index]
        expected, number = theirs[index]
        pixels = np.asarray(expected.convert("RGB"))
        assert np.array_equal(np.asarray(image), pixels.transpose(1, 0, 2) if transpose else pixels)
        assert label == number - shift


@pytest.mark.parametrize(
    ("name", "theirs"), [("mnist", tv.MNIST), ("fashion_mnist", tv.FashionMNIST), ("kmnist", tv.KMNIST)]
)
def test_mnist_and_its_like(tmp_path: Path, name: str, theirs: type[tv.MNIST]) -> None:
    datamodule = opened(name, **replicas.REPLICAS[name](tmp_path))
    assert_same(datamodule.train_dataset, theirs(tmp_path, train=True))
    assert_same(datamodule.test_dataset, theirs(tmp_path, train=False))
    spoken = [title.split(" - ")[-1] for title in theirs.classes]
    assert name == "mnist" or datamodule.class_names == spoken


def test_letters_start_at_0_and_stand_upright(tmp_path: Path) -> None:
    options = replicas.write_emnist_letters(tmp_path)
    datamodule = opened("letters", **options)
    assert datamodule.name == "emnist_letters"
    for split, dataset in {True: datamodule.train_dataset, False: datamodule.test_dataset}.items():
        assert_same(dataset, tv.EMNIST(tmp_path, "letters", train=split), shift=1, transpose=True)
    assert "".join(datamodule.class_names) == "abcdefghijklmnopqrstuvwxyz"


def test_compressed_files_do_as_well(tmp_path: Path) -> None:
    plain = opened("mnist", **replicas.write_mnist(tmp_path / "plain"))
    packed = opened("mnist", **replicas.write_mnist(tmp_path / "packed", packed=True))  # type: ignore[call-arg]
    assert_same(packed.train_dataset, plain.train_dataset)


def test_cifar(tmp_path: Path) -> None:
    options = replicas.write_split_cifar(tmp_path)
    for name, theirs in (("cifar10", tv.CIFAR10), ("cifar100", tv.CIFAR100)):
        datamodule = opened(name, **options)
        for train, dataset in {True: datamodule.train_dataset, False: datamodule.test_dataset}.items():
            assert_same(dataset, theirs(tmp_path, train=train))
            assert datamodule.class_names == theirs(tmp_path, train=train).classes


def test_stl10(tmp_path: Path) -> None:
    datamodule = opened("stl10", **replicas.write_stl10(tmp_path))
    assert_same(datamodule.train_dataset, tv.STL10(tmp_path, "train"))
    assert_same(datamodule.test_dataset, tv.STL10(tmp_path, "test"))


def test_svhn(tmp_path: Path) -> None:
    datamodule = opened("svhn", **replicas.write_svhn(tmp_path))
    assert_same(datamodule.train_dataset, tv.SVHN(tmp_path, "train"))
    assert_same(datamodule.test_dataset, tv.SVHN(tmp_path, "test"))


def test_split_cifar_is_cifar10_and_ten_tenths_of_cifar100(tmp_path: Path) -> None:
    options = replicas.write_split_cifar(tmp_path)
    assert len(get_datamodule("split_cifar", **options).task_names) == 11
    first = opened("split_cifar", task_id=0, **options)
    assert_same(first.train_dataset, tv.CIFAR10(tmp_path, train=True))
    theirs = tv.CIFAR100(tmp_path, train=False)
    for task in (1, 4, 10):
        ours = opened("split_cifar", task_id=task, **options)
        part = [item for item in theirs if 10 * (task - 1) <= item[1] < 10 * task]
        assert_same(ours.test_dataset, part, shift=10 * (task - 1))
        assert ours.class_names == theirs.classes[10 * (task - 1) : 10 * task]


@pytest.mark.parametrize("digits", [(0, 1), [7, 2, 5], (9, 0)])
def test_split_mnist_labels_digits_in_the_order_asked_for(tmp_path: Path, digits: Any) -> None:
    datamodule = opened("split_mnist", task_id=digits, **replicas.write_mnist(tmp_path))
    part = [(image, list(digits).index(n)) for image, n in tv.MNIST(tmp_path) if n in digits]
    assert_same(datamodule.train_dataset, part)
    assert datamodule.class_names == [str(digit) for digit in digits]
    assert datamodule.num_classes == len(digits)


def test_split_mnist_counts_the_usual_pairs(tmp_path: Path) -> None:
    options = replicas.write_mnist(tmp_path)
    pairs = [get_datamodule("split_mnist", task_id=task, **options) for task in range(5)]
    assert [pair.class_names for pair in pairs] == [[str(2 * n), str(2 * n + 1)] for n in range(5)]
    assert [pair.task_name for pair in pairs] == pairs[0].task_names


@pytest.mark.parametrize("digits", [(0,), (1, 1), (3, 10), (0, -1), ("0", "1"), (True, 0), (), "01", 5])
def test_other_digits_are_an_error(digits: Any) -> None:
    with pytest.raises(UnknownTaskError, match="for 'split_mnist'; allowed are"):
        get_datamodule("split_mnist", task_id=digits)


def test_cifar10_mnist_keeps_the_labels_of_both_apart(tmp_path: Path) -> None:
    datamodule = opened("cifar10_mnist", **replicas.write_cifar10_mnist(tmp_path))
    theirs = tv.CIFAR10(tmp_path, train=False)
    digits = tv.MNIST(tmp_path, train=False)
    expected = [*theirs, *((image, number + 10) for image, number in digits)]
    assert_same(datamodule.test_dataset, expected)
    assert datamodule.class_names == [*theirs.classes, *"0123456789"]
