"""Tasks in a tree of folders, with a folder for each class."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from t2v_lightning.data.base import SPLIT_NAMES, Split
from t2v_lightning.data.errors import MissingDataError
from t2v_lightning.data.images import image_suffixes, pack_names
from t2v_lightning.data.task import Task

_SYSTEM = (
    "@eaDir",
    "@Recycle",
    "#recycle",
    "$RECYCLE.BIN",
    "__MACOSX",
    "lost+found",
    "Thumbs.db",
    "desktop.ini",
)
"""What operating systems and storage devices put beside one's own files."""

log = logging.getLogger(__name__)


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
    splits = split_folders(root)
    classes = subfolders(splits["train"])
    if not classes:
        raise MissingDataError(
            f"{splits['train']} holds no folder; allowed are class/image and task/class/image"
        )
    suffixes = image_suffixes()
    if any(_is_image(entry.name, suffixes) for folder in classes for entry in os.scandir(folder)):
        return {root.resolve().name: splits}
    if len(splits) > 1 or splits["train"] != root:
        return {
            task.name: {
                split: folder / task.name for split, folder in splits.items() if (folder / task.name).is_dir()
            }
            for task in classes
        }
    return {task.name: split_folders(task) for task in classes}


def folder_task(root: Path, folder: Path) -> Task[np.bytes_]:
    """The task with a class for each folder in `folder`, in alphabetical order, and the images at any depth in it.

    Names of images start from `root`. Images are the files that Pillow reads. Links to folders are followed, and each
    folder counts once in a class, however many links lead to it. Hidden folders do not count. A warning names and
    counts what is left out, but for hidden files.

    Raises:
        MissingDataError: there is no class, or a class has no image.
    """
    left_out: dict[str, list[str]] = {}
    classes = {
        sub.name: [os.path.relpath(file, root) for file in _images(sub, left_out)]
        for sub in subfolders(folder)
    }
    if not classes:
        raise MissingDataError(f"{folder} holds no folder: make one for each class, with its images inside")
    for name, files in classes.items():
        if not files:
            raise MissingDataError(
                f"{folder / name} holds no image (a file that Pillow reads, such as .jpg or .png): add some, "
                "or remove the folder"
            )
    _note_beside(folder, left_out)
    for what, paths in left_out.items():
        log.warning(
            "%s: left out %s (%d), such as %s", folder, what, len(paths), os.path.relpath(paths[0], root)
        )
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return Task(pack_names(file for files in classes.values() for file in files), labels, tuple(classes))


def split_folders(folder: Path) -> dict[Split, Path]:
    """The folder of each split, by `SPLIT_NAMES`; the folder itself as "train" if there is none of that name."""
    found = {sub.name.lower(): sub for sub in subfolders(folder)}
    splits = {
        split: next(found[name] for name in names if name in found)
        for split, names in SPLIT_NAMES.items()
        if found.keys() & set(names)
    }
    return splits if "train" in splits else {"train": folder}


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, in alphabetical order, without those that systems keep for themselves."""
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and not _is_hidden(sub.name))


def _images(folder: Path, left_out: dict[str, list[str]]) -> list[str]:
    """The images at any depth in the folder of a class; what else there is goes into `left_out`, by its kind."""
    suffixes, found = image_suffixes(), []
    # A link to one of these would lead round in circles, or make the images of all classes those of one.
    seen = {os.path.realpath(place) for place in folder.absolute().parents}

    def search(place: str) -> None:
        real = os.path.realpath(place)
        if real in seen:
            left_out.setdefault("links to folders that are there already", []).append(place)
            return
        seen.add(real)
        with os.scandir(place) as entries:
            here = sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))
        for entry in here:
            if not entry.is_dir():
                if _is_image(entry.name, suffixes):
                    found.append(entry.path)
                elif _leads_nowhere(entry):
                    left_out.setdefault("links that lead nowhere", []).append(entry.path)
                elif not _is_hidden(entry.name):
                    left_out.setdefault("files that are no images", []).append(entry.path)
            elif _is_hidden(entry.name):
                left_out.setdefault("hidden folders", []).append(entry.path)
            else:
                search(entry.path)

    search(str(folder))
    return sorted(found)


def _note_beside(folder: Path, left_out: dict[str, list[str]]) -> None:
    """Note what lies beside the folders of the classes: images, hidden folders, and links that lead nowhere."""
    suffixes = image_suffixes()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if _leads_nowhere(entry):
            left_out.setdefault("links that lead nowhere", []).append(entry.path)
        elif entry.is_dir() and _is_hidden(entry.name):
            left_out.setdefault("hidden folders", []).append(entry.path)
        elif not entry.is_dir() and _is_image(entry.name, suffixes):
            left_out.setdefault("images beside the folders of classes", []).append(entry.path)


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path) and not _is_hidden(entry.name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM


def _is_image(name: str, suffixes: Collection[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes and not _is_hidden(name)
