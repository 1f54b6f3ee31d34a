"""The built-in tasks: real images and texts that come with the installation, so that everything runs offline.

The tasks of a family ask similar questions of similar samples.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch.utils.data import default_collate

from t2v_lightning.data.base import Split, TaskDataModule
from t2v_lightning.data.builtin.arrays import (
    digit_task,
    face_other_task,
    face_photo_task,
    face_turn_task,
)
from t2v_lightning.data.builtin.crop_tasks import crop_task, open_crop
from t2v_lightning.data.builtin.texts import kind_task, package_task
from t2v_lightning.data.dataset import as_it_is, collate_images
from t2v_lightning.data.errors import UnknownDataModuleError
from t2v_lightning.data.images import open_array
from t2v_lightning.data.task import Task


class BuiltinTask(NamedTuple):
    """The definition of a built-in task.

    `load` takes a split and returns its samples, labels and class names; `open_image` opens one sample; `collate` makes
    a batch.
    """

    family: str
    load: Callable[[Split], Task[Any]]
    open_image: Callable[[Any], Any]
    collate: Callable[[Any], Any] = collate_images


def _digits(groups: dict[str, list[int]]) -> BuiltinTask:
    return BuiltinTask("digits", partial(digit_task, groups), open_array)


def _faces(load: Callable[[Split], Task[Any]]) -> BuiltinTask:
    return BuiltinTask("faces", load, open_array)


def _crops(family: str, *classes: str) -> BuiltinTask:
    return BuiltinTask(family, partial(crop_task, classes), open_crop)


def _texts(family: str, load: Callable[[Split], Task[str]]) -> BuiltinTask:
    return BuiltinTask(family, load, as_it_is, default_collate)


_CLOSEUPS = ("cat", "coffee", "flower", "astronaut")
_SCENES = ("pagoda", "rocket", "motorcycle")

BUILTIN_TASKS: dict[str, BuiltinTask] = {
    "digits": _digits({str(digit): [digit] for digit in range(10)}),
    "digits_odd_even": _digits({"even": [0, 2, 4, 6, 8], "odd": [1, 3, 5, 7, 9]}),
    "digits_low": _digits({str(digit): [digit] for digit in range(5)}),
    "digits_high": _digits({str(digit): [digit] for digit in range(5, 10)}),
    "faces": _faces(face_other_task),
    "faces_photos": _faces(face_photo_task),
    "faces_upright": _faces(partial(face_turn_task, {"upright": 0, "upside down": 2})),
    "faces_turned": _faces(partial(face_turn_task, {"upright": 0, "left": 1, "upside down": 2, "right": 3})),
    "textures": _crops("textures", "brick", "grass", "gravel"),
    "textures_ground": _crops("textures", "grass", "gravel"),
    "textures_stone": _crops("textures", "brick", "gravel"),
    "photos": _crops("photos", *_CLOSEUPS, *_SCENES),
    "photos_closeups": _crops("photos", *_CLOSEUPS),
    "photos_scenes": _crops("photos", *_SCENES),
    "medical": _crops("medical", "epithelium", "stroma", "vessels", "background"),
    "medical_tissue": _crops("medical", "epithelium", "stroma"),
    "medical_retina": _crops("medical", "vessels", "background"),
}
"""Every built-in task of images by its name, grouped by family."""

_NUMERICS, _LEARNING = ["numpy", "scipy"], ["sklearn", "torch"]

TEXT_TASKS: dict[str, BuiltinTask] = {
    "docstrings": _texts("docstrings", partial(package_task, "docstring", [*_NUMERICS, *_LEARNING])),
    "docstrings_numerics": _texts("docstrings", partial(package_task, "docstring", _NUMERICS)),
    "docstrings_learning": _texts("docstrings", partial(package_task, "docstring", _LEARNING)),
    "code": _texts("code", partial(package_task, "code", [*_NUMERICS, *_LEARNING])),
    "code_numerics": _texts("code", partial(package_task, "code", _NUMERICS)),
    "code_learning": _texts("code", partial(package_task, "code", _LEARNING)),
    "code_or_docstring": _texts("kinds", partial(kind_task, [*_NUMERICS, *_LEARNING])),
    "code_or_docstring_numerics": _texts("kinds", partial(kind_task, _NUMERICS)),
}
"""Every built-in task of texts by its name, for probes that are language models."""


class BuiltinDataModule(TaskDataModule):
    """One of the built-in tasks as a datamodule.

    Args:
        name: a key of `BUILTIN_TASKS` or `TEXT_TASKS`.
        root: not needed; the images come with scikit-image and scikit-learn, the texts with these and other packages.
        task_id: None or 0, because each name is one task.
        options: see `TaskDataModule`.

    Raises:
        UnknownDataModuleError: no built-in task has that name.

    >>> digits = BuiltinDataModule("digits")
    >>> digits.setup()
    >>> digits.num_classes, digits.family, len(digits.train_dataset), digits.train_dataset[0][0].size
    (10, 'digits', 400, (8, 8))
    """

    in_memory = True

    def __init__(
        self,
        name: str,
        root: str | os.PathLike[str] | None = None,
        task_id: int | None = None,
        **options: Any,
    ) -> None:
        tasks = BUILTIN_TASKS | TEXT_TASKS
        if name not in tasks:
            raise UnknownDataModuleError(f"got built-in task {name!r}; allowed are {', '.join(tasks)}")
        self.name, self._builtin = name, tasks[name]
        self.open_image, self.collate = self._builtin.open_image, self._builtin.collate
        super().__init__(root, task_id, **options)

    @property
    def task_names(self) -> list[str]:
        return [self.name]

    @property
    def family(self) -> str:
        return self._builtin.family

    def load_task(self, split: Split) -> Task[Any]:
        return self._builtin.load(split)
