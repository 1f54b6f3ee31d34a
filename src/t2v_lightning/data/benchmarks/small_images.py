"""Benchmarks of small images, in the folders and files in which torchvision keeps them.

torchvision's own datasets do not read them because they refuse MNIST files that are still compressed, demand STL-10's
unlabelled images and check all 3.1 GB at each opening, execute CIFAR's pickles, and do not say which file is damaged.
"""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvision import datasets as tv

from t2v_lightning.data.base import Split
from t2v_lightning.data.benchmarks.raw_formats import read_idx, read_matlab, read_plain, read_python_batch
from t2v_lightning.data.download.datamodule import DownloadableDataModule
from t2v_lightning.data.images import open_array
from t2v_lightning.data.task import Task

Pixels = NDArray[np.uint8]
_DIGITS = tuple("0123456789")


class SmallImages(DownloadableDataModule):
    """A benchmark whose images are kept in memory as arrays."""

    family = "objects"
    open_image = staticmethod(open_array)


class MNIST(SmallImages):
    """Handwritten digits, 28 x 28 and grey: 60,000 to train on and 10,000 to test (LeCun et al., 1998).

    >>> MNIST("data").task_names
    ['mnist']
    """

    name = "mnist"
    family = "characters"
    mean, std = (0.1307,) * 3, (0.3081,) * 3
    folder: ClassVar[str] = "MNIST/raw"
    prefixes: ClassVar[dict[Split, str]] = {"train": "train", "test": "t10k"}
    names: ClassVar[tuple[str, ...]] = _DIGITS

    def load_task(self, split: Split) -> Task[Pixels]:
        images, labels = self._read(split, "images-idx3"), self._read(split, "labels-idx1")
        return Task(images, labels.astype(np.int64), self.names)

    def _read(self, split: Split, kind: str) -> Pixels:
        name = f"{self.prefixes[split]}-{kind}-ubyte"
        packed = self.require(self.folder) / f"{name}.gz"
        plain = packed.with_suffix("")
        return read_idx(packed if packed.exists() and not plain.exists() else self.require(self.folder, name))


class FashionMNIST(MNIST):
    """Articles of clothing in the format of MNIST (Xiao et al., 2017)."""

    name = "fashion_mnist"
    family = "clothes"
    mean, std = (0.2860,) * 3, (0.3530,) * 3
    folder = "FashionMNIST/raw"
    names = tuple(tv.FashionMNIST.classes)


class KMNIST(MNIST):
    """Cursive Japanese characters in the format of MNIST (Clanuwat et al., 2018)."""

    name = "kmnist"
    mean, std = (0.1918,) * 3, (0.3483,) * 3
    folder = "KMNIST/raw"
    names = tuple(tv.KMNIST.classes)


class EMNISTLetters(MNIST):
    """Handwritten letters, upper and lower case as one class (Cohen et al., 2017), turned upright."""

    name = "emnist_letters"
    mean, std = (0.1722,) * 3, (0.3309,) * 3
    folder = "EMNIST/raw"
    prefixes: ClassVar[dict[Split, str]] = {"train": "emnist-letters-train", "test": "emnist-letters-test"}
    names = tuple(ascii_lowercase)

    def load_task(self, split: Split) -> Task[Pixels]:
        images, labels = self._read(split, "images-idx3"), self._read(split, "labels-idx1")
        # In the files letters lie on their side and labels start at 1.
        return Task(images.swapaxes(1, 2), labels.astype(np.int64) - 1, self.names)


class CIFAR10(SmallImages):
    """Photographs of ten kinds of things, 32 x 32: 50,000 and 10,000 of them (Krizhevsky, 2009)."""

    name = "cifar10"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    files: ClassVar[type[tv.CIFAR10]] = tv.CIFAR10
    label_key: ClassVar[str] = "labels"

    def load_task(self, split: Split) -> Task[Pixels]:
        files = self.files.train_list if split == "train" else self.files.test_list
        batches = [self._read(file, "data", self.label_key) for file, _ in files]
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([batch[self.label_key] for batch in batches]).astype(np.int64)
        key = self.files.meta["key"]
        return Task(
            pixels.transpose(0, 2, 3, 1), labels, tuple(self._read(self.files.meta["filename"], key)[key])
        )

    def _read(self, file: str, *entries: str) -> dict[str, Any]:
        return read_python_batch(self.require(self.files.base_folder, file), *entries)


class CIFAR100(CIFAR10):
    """The same with a hundred kinds of things."""

    name = "cifar100"
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    files = tv.CIFAR100
    label_key = "fine_labels"


class STL10(SmallImages):
    """Ten kinds of things, 96 x 96: the 5,000 and 8,000 labelled images (Coates et al., 2011)."""

    name = "stl10"
    mean, std = (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)

    def load_task(self, split: Split) -> Task[Pixels]:
        images = read_plain(self.require("stl10_binary", f"{split}_X.bin"), 3, 96, 96)
        labels = read_plain(self.require("stl10_binary", f"{split}_y.bin"))
        names = self.require("stl10_binary", "class_names.txt").read_text().split()
        # In the files columns come before rows and labels start at 1.
        return Task(images.transpose(0, 3, 2, 1), labels.astype(np.int64) - 1, tuple(names))


class SVHN(SmallImages):
    """Digits of house numbers, 32 x 32: 73,257 and 26,032 of them (Netzer et al., 2011)."""

    name = "svhn"
    family = "characters"
    mean, std = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)

    def load_task(self, split: Split) -> Task[Pixels]:
        images, labels = read_matlab(self.require(f"{split}_32x32.mat"), "X", "y")
        # The files call the digit zero 10.
        return Task(images.transpose(3, 0, 1, 2), labels.ravel().astype(np.int64) % 10, _DIGITS)
