"""Tasks in a tree of folders, with a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from t2v_lightning.data.base import SPLIT_NAMES, Split
from t2v_lightning.data.errors import MissingDataError
from t2v_lightning.data.images import IMAGE_SUFFIXES, pack_names
from t2v_lightning.data.task import Task


def find_tasks(root: Path) -> dict[str, dict[Split, Path]]:
    """The folders of each task's splits; a task without a test folder has only "train".

    The trees are `class/image` and `task/class/image`, either with a folder `train` and a folder `test` (see
    `SPLIT_NAMES`) on top or inside the task.

    Raises:
        MissingDataError: there is no folder of images.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for path in ("colours/red/1.png", "colours/blue/1.png", "shapes/round/1.png"):
    ...     (root / path).parent.mkdir(parents=True)
    ...     (root / path).touch()
    >>> sorted(find_tasks(root))
    ['colours', 'shapes']
    """
    splits = _split_folders(root)
    classes = _subfolders(splits["train"])
    if not classes:
        raise MissingDataError(
            f"{splits['train']} holds no folder; allowed are class/image and task/class/image"
        )
    if any(_is_image(entry.name) for folder in classes for entry in os.scandir(folder)):
        return {root.resolve().name: splits}
    if len(splits) > 1 or splits["train"] != root:
        return {
            task.name: {
                split: folder / task.name for split, folder in splits.items() if (folder / task.name).is_dir()
            }
            for task in classes
        }
    return {task.name: _split_folders(task) for task in classes}


def folder_task(root: Path, folder: Path) -> Task[np.bytes_]:
    """The task with a class for each folder in `folder`, in alphabetical order, and the images at any depth in it.

    Names of images start from `root`.

    Raises:
        MissingDataError: there is no class, or a class has no image.
    """
    classes: Mapping[str, list[str]] = {
        sub.name: [os.path.relpath(file, root) for file in _images(sub)] for sub in _subfolders(folder)
    }
    if not classes:
        raise MissingDataError(f"{folder} holds no folder: make one for each class, with its images inside")
    for name, files in classes.items():
        if not files:
            raise MissingDataError(
                f"{folder / name} holds no image (files ending in {', '.join(IMAGE_SUFFIXES)}): add some, or "
                "remove the folder"
            )
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return Task(pack_names(file for files in classes.values() for file in files), labels, tuple(classes))


def _split_folders(folder: Path) -> dict[Split, Path]:
    found = {sub.name.lower(): sub for sub in _subfolders(folder)}
    splits = {
        split: next(found[name] for name in names if name in found)
        for split, names in SPLIT_NAMES.items()
        if found.keys() & set(names)
    }
    return splits if "train" in splits else {"train": folder}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith("."))


def _images(folder: Path) -> list[str]:
    return sorted(
        os.path.join(parent, file)
        for parent, _, files in os.walk(folder)
        for file in files
        if _is_image(file)
    )


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
