"""The library that comes with the package: the built-in tasks, and experts that wheels carry."""

from __future__ import annotations

import os
from importlib.resources import as_file, files
from pathlib import Path

from t2v_lightning.library.files import LIBRARY_FILE
from t2v_lightning.library.task_library import TaskLibrary

BUILTIN = "builtin"
"""What stands for its folder on command lines."""
PROBE, INPUT_SIZE = "efficientnet_lite0", 96
"""What its tasks were embedded with."""


def builtin_library() -> TaskLibrary:
    """Seventeen small tasks of five families, and what networks that need no download make of them.

    It rests on little: crops of a dozen photographs, digits and faces, at 96 pixels. Advice for tasks that are unlike
    these is the static list, and says so. `scripts/build_library.py` makes it.

    >>> library = builtin_library()
    >>> len(library), library.protocols
    (17, [Protocol(kind='probe', images=10, seed=None)])
    """
    with as_file(files("t2v_lightning.library") / "builtin_tasks") as folder:
        return TaskLibrary(folder)


def open_library(place: str | os.PathLike[str], to_write: bool = False) -> TaskLibrary:
    """The library in a folder, or the one that comes with the package for `builtin`.

    Args:
        place: the folder, or `builtin`.
        to_write: whether it is to be changed, which the one that comes with the package must not be.

    Raises:
        FileNotFoundError: the folder holds no library.
        ValueError: its files are damaged, or it must not be changed.
    """
    if os.fspath(place) == BUILTIN and not Path(place).exists():
        if to_write:
            raise ValueError(
                f"the library {BUILTIN!r} comes with the package and is not changed; write a copy with "
                "builtin_library().save(folder), or make one of your own with `build`"
            )
        return builtin_library()
    if not (Path(place) / LIBRARY_FILE).is_file():
        raise FileNotFoundError(
            f"{os.fspath(place)} holds no library; python -m t2v_lightning.library build makes one, and "
            f"{BUILTIN!r} is the one that comes with the package"
        )
    return TaskLibrary(place)
