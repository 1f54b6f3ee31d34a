"""MNIST and the benchmarks that share its file format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.algebra import select_classes
from t2v_lightning.data.arrays import open_array
from t2v_lightning.data.base import Split
from t2v_lightning.data.benchmarks.raw_formats import read_idx
from t2v_lightning.data.download.datamodule import DownloadableDataModule
from t2v_lightning.data.errors import UnknownTaskError
from t2v_lightning.data.task import Task

__all__ = ["KMNIST", "MNIST", "EMNISTLetters", "FashionMNIST", "SplitMNIST"]

_DIGITS = tuple("0123456789")


class MNIST(DownloadableDataModule):
    """Handwritten digits in 28 x 28 grey pixels (LeCun et al., 1998): 60,000 to train on and 10,000 to test.

    >>> MNIST("data").task_names
    ['mnist']
    """

    name = "mnist"
    family = "characters"
    mean = (0.1307,) * 3
    std = (0.3081,) * 3
    open_image = staticmethod(open_array)
    folder: ClassVar[str] = "MNIST/raw"
    prefixes: ClassVar[dict[str, str]] = {"train": "train", "test": "t10k"}
    names: ClassVar[tuple[str, ...]] = _DIGITS
    first_label: ClassVar[int] = 0

    def load_task(self, split: Split) -> Task[NDArray[np.uint8]]:
        images = read_idx(self._file(f"{self.prefixes[split]}-images-idx3-ubyte"))
        labels = read_idx(self._file(f"{self.prefixes[split]}-labels-idx1-ubyte"))
        return Task(images, labels.astype(np.int64) - self.first_label, self.names)

    def _file(self, name: str) -> Path:
        folder = self.require(*self.folder.split("/"))
        packed = folder / f"{name}.gz"
        return packed if packed.exists() and not (folder / name).exists() else self.require(self.folder, name)


class FashionMNIST(MNIST):
    """Articles of clothing in the format of MNIST (Xiao et al., 2017)."""

    name = "fashion_mnist"
    family = "clothes"
    mean = (0.2860,) * 3
    std = (0.3530,) * 3
    folder = "FashionMNIST/raw"
    names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )


class KMNIST(MNIST):
    """Cursive Japanese characters in the format of MNIST (Clanuwat et al., 2018)."""

    name = "kmnist"
    mean = (0.1918,) * 3
    std = (0.3483,) * 3
    folder = "KMNIST/raw"
    names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


class EMNISTLetters(MNIST):
    """Handwritten letters, upper and lower case as one class (Cohen et al., 2017); labels start at 0.

    The files hold letters on their side; they are turned upright.
    """

    name = "emnist_letters"
    mean = (0.1722,) * 3
    std = (0.3309,) * 3
    folder = "EMNIST/raw"
    prefixes: ClassVar[dict[str, str]] = {"train": "emnist-letters-train", "test": "emnist-letters-test"}
    names = tuple(ascii_lowercase)
    first_label = 1

    def load_task(self, split: Split) -> Task[NDArray[np.uint8]]:
        task = super().load_task(split)
        return Task(np.swapaxes(np.asarray(task.samples), 1, 2), task.labels, task.names)


class SplitMNIST(MNIST):
    """Some digits of MNIST; ``task_id`` is a tuple of two or more, labelled in its order.

    A number k in 0..4 stands for the digits (2k, 2k + 1), the pairs of the usual Split-MNIST.

    >>> SplitMNIST("data", task_id=[3, 8]).task_name
    '3 and 8'
    """

    name = "split_mnist"
    sources = ("mnist",)

    @property
    def task_names(self) -> list[str]:
        return [_spoken((even, even + 1)) for even in range(0, 10, 2)]

    @property
    def task_name(self) -> str:
        return _spoken(self.digits)

    @property
    def digits(self) -> tuple[int, ...]:
        """The digits that the task tells apart."""
        return self.task_id if isinstance(self.task_id, tuple) else (2 * self.task_id, 2 * self.task_id + 1)

    def check_task_id(self, task_id: Any) -> Any:
        if not isinstance(task_id, Sequence) or isinstance(task_id, str):
            return super().check_task_id(task_id)
        digits = tuple(task_id)
        whole = all(isinstance(digit, int) and not isinstance(digit, bool) for digit in digits)
        if not whole or len(set(digits)) < max(2, len(digits)) or not set(digits) <= set(range(10)):
            raise UnknownTaskError(
                f"Got task_id={task_id!r} for {self.name!r}: allowed are two or more different digits 0..9, "
                "such as [0, 1], or the number 0..4 of a pair."
            )
        return digits

    def load_task(self, split: Split) -> Task[NDArray[np.uint8]]:
        return select_classes(super().load_task(split), self.digits)


def _spoken(digits: Sequence[int]) -> str:
    return ", ".join(map(str, digits[:-1])) + f" and {digits[-1]}"
