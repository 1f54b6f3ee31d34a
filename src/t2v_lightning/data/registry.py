"""Finding datamodules by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from t2v_lightning._spelling import did_you_mean
from t2v_lightning.data.base import TaskDataModule
from t2v_lightning.data.benchmarks.cub200 import CUB200
from t2v_lightning.data.benchmarks.cub_inat2018 import CUBINat2018
from t2v_lightning.data.benchmarks.imat2018_fashion import IMat2018Fashion
from t2v_lightning.data.benchmarks.inat2018 import INat2018
from t2v_lightning.data.benchmarks.recombined import CIFAR10MNIST, SplitCIFAR, SplitMNIST
from t2v_lightning.data.benchmarks.small_images import (
    CIFAR10,
    CIFAR100,
    KMNIST,
    MNIST,
    STL10,
    SVHN,
    EMNISTLetters,
    FashionMNIST,
)
from t2v_lightning.data.builtin.datamodule import BUILTIN_TASKS, TEXT_TASKS, BuiltinDataModule
from t2v_lightning.data.errors import UnknownDataModuleError
from t2v_lightning.data.names import ALIASES
from t2v_lightning.data.own.hf import HuggingFace
from t2v_lightning.data.own.image_folder import ImageFolder
from t2v_lightning.data.own.text import TextTable

_CLASSES: tuple[type[TaskDataModule], ...] = (
    MNIST,
    FashionMNIST,
    KMNIST,
    EMNISTLetters,
    CIFAR10,
    CIFAR100,
    STL10,
    SVHN,
    SplitMNIST,
    SplitCIFAR,
    CIFAR10MNIST,
    CUB200,
    INat2018,
    CUBINat2018,
    IMat2018Fashion,
    ImageFolder,
    HuggingFace,
    TextTable,
)

_DATAMODULES: dict[str, Callable[..., TaskDataModule]] = {
    **{name: partial(BuiltinDataModule, name) for name in BUILTIN_TASKS | TEXT_TASKS},
    **{datamodule.name: datamodule for datamodule in _CLASSES},
}


def list_datamodules() -> list[str]:
    """Names of all datamodules, grouped by family, without `ALIASES`.

    >>> list_datamodules()[:2]
    ['digits', 'digits_odd_even']
    """
    return list(_DATAMODULES)


def get_datamodule(name: str, **options: Any) -> TaskDataModule:
    """The datamodule of that name.

    Args:
        name: one of `list_datamodules` or `ALIASES`.
        options: options of the datamodule: `root`, `task_id`, `transform`, `batch_size`, `num_workers`, `on_error`,
            `pin_memory`, `prefetch_factor`, `persistent_workers`, and its own.

    Raises:
        UnknownDataModuleError: no datamodule has that name.
        TypeError: the datamodule has no such option.

    >>> get_datamodule("textures", batch_size=8).class_names
    ['brick', 'grass', 'gravel']
    """
    factory = _DATAMODULES.get(ALIASES.get(name, name))
    if factory is None:
        near = did_you_mean(name, [*_DATAMODULES, *ALIASES])
        raise UnknownDataModuleError(
            f"got dataset {name!r}, which does not exist{near or ';'} "
            "`t2v list datasets` and list_datamodules() list all"
        )
    allowed = _options(factory)
    for option in options:
        if option not in allowed:
            near = did_you_mean(option, allowed)
            raise TypeError(
                f"got option {option!r} for dataset {name!r}; allowed are {', '.join(allowed)}{near}"
            )
    return factory(**options)


def _options(factory: Callable[..., TaskDataModule]) -> list[str]:
    """Names of a datamodule's options: its own, then those that it passes on to its bases."""
    fixed = ["self"]
    if isinstance(factory, partial):
        fixed += ["name"]
        factory = factory.func
    names: dict[str, None] = {}
    for cls in inspect.getmro(factory):  # type: ignore[arg-type]
        if "__init__" in vars(cls):
            parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
            names.update((p.name, None) for p in parameters if p.kind is not p.VAR_KEYWORD)
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
    return [name for name in names if name not in fixed]
