"""Benchmarks made of others: some digits of MNIST, parts of CIFAR, and CIFAR-10 with MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from t2v_lightning.data.algebra import join, select_classes
from t2v_lightning.data.base import Split
from t2v_lightning.data.benchmarks.small_images import CIFAR10, CIFAR100, MNIST, Pixels, SmallImages
from t2v_lightning.data.errors import UnknownTaskError
from t2v_lightning.data.task import Task


class SplitMNIST(MNIST):
    """Some digits of MNIST; `task_id` is a tuple of two or more, labelled in its order.

    A number k in 0..4 stands for the digits (2k, 2k + 1), the pairs of the usual Split-MNIST.

    >>> SplitMNIST("data", task_id=[3, 8]).task_name
    '3 and 8'
    """

    name = "split_mnist"
    sources = ("mnist",)

    @property
    def task_names(self) -> list[str]:
        return [f"{even} and {even + 1}" for even in range(0, 10, 2)]

    @property
    def task_name(self) -> str:
        return ", ".join(map(str, self.digits[:-1])) + f" and {self.digits[-1]}"

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
                f"got task_id={task_id!r} for {self.name!r}; allowed are two or more different digits 0..9, "
                "such as [0, 1], or the number 0..4 of a pair"
            )
        return digits

    def load_task(self, split: Split) -> Task[Pixels]:
        return select_classes(super().load_task(split), self.digits)


class SplitCIFAR(SmallImages):
    """Task 0 is CIFAR-10; task k of 1..10 tells classes 10(k-1)..10k-1 of CIFAR-100 apart.

    >>> SplitCIFAR("data", task_id=2).task_name
    'cifar100 classes 10 to 19'
    """

    name = "split_cifar"
    mean, std = CIFAR100.mean, CIFAR100.std

    def sources_of_task(self) -> tuple[str, ...]:
        return ("cifar10",) if self.task_id == 0 else ("cifar100",)

    @property
    def task_names(self) -> list[str]:
        return ["cifar10", *(f"cifar100 classes {first} to {first + 9}" for first in range(0, 100, 10))]

    def load_task(self, split: Split) -> Task[Pixels]:
        if self.task_id == 0:
            return CIFAR10(self.root).load_task(split)
        first = 10 * (self.task_id - 1)
        return select_classes(CIFAR100(self.root).load_task(split), range(first, first + 10))


class CIFAR10MNIST(SmallImages):
    """The union of CIFAR-10 (classes 0..9) and MNIST (10..19).

    Images keep their sizes, 32 and 28 pixels, so loaders need a transform that makes them one size.

    >>> CIFAR10MNIST("data").task_names
    ['cifar10_mnist']
    """

    name = "cifar10_mnist"
    mean, std = CIFAR10.mean, CIFAR10.std
    sources = ("cifar10", "mnist")

    def load_task(self, split: Split) -> Task[Pixels]:
        return join(CIFAR10(self.root).load_task(split), MNIST(self.root).load_task(split))
