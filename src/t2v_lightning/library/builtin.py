"""The library that comes with the package: the built-in tasks, and experts that wheels carry."""

from __future__ import annotations

from importlib.resources import as_file, files

from t2v_lightning.library.task_library import TaskLibrary

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
