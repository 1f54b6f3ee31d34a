"""Benchmarks whose samples are image files below one folder."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, ClassVar

from t2v_lightning.data.base import Split, TaskDataModule
from t2v_lightning.data.errors import MissingDataError
from t2v_lightning.data.images import missing_files, open_file
from t2v_lightning.data.task import Task

__all__ = ["FileDataModule"]


class FileDataModule(TaskDataModule):
    """A benchmark whose samples are names of image files, bytes [N] as of ``pack_names``.

    Args:
        root, task_id, options: see :class:`TaskDataModule`.
    """

    image_folder: ClassVar[str] = ""
    """Folder below ``root`` that the names start from."""

    def __init__(
        self, root: str | os.PathLike[str] | None = None, task_id: Any = None, **options: Any
    ) -> None:
        super().__init__(root, task_id, **options)
        self.open_image = partial(open_file, str(self.root / self.image_folder) if self.root else "")

    def check_files(self, task: Task[Any], split: Split) -> Task[Any]:
        """The task, if all its files are there; with ``on_error="skip"`` always, as skipping comes later.

        Raises:
            MissingDataError: some are not; the message counts them and names the first.
        """
        folder = self.require(*filter(None, [self.image_folder]))
        missing = [] if self.on_error == "skip" else missing_files(folder, task.samples)  # type: ignore[arg-type]
        if missing:
            raise MissingDataError(
                f"{len(missing)} of the {len(task)} {split} images that dataset {self.name!r} lists do not "
                f"exist, such as {folder / missing[0]}: put them there, or pass on_error='skip' to go on "
                "without them."
            )
        return task
