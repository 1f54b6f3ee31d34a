"""The base of benchmarks that `prepare_data` fetches, because they are free and not too large."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from t2v_lightning.data.base import TaskDataModule
from t2v_lightning.data.download.catalogue import CATALOGUE, fetch_all


class DownloadableDataModule(TaskDataModule):
    """A benchmark of `CATALOGUE`, in the folders that torchvision uses.

    Args:
        root: folder that holds the benchmark's own folder, or in which it is created.
        task_id: see `TaskDataModule`.
        download: whether `prepare_data` fetches what is missing.
        options: see `TaskDataModule`.
    """

    sources: ClassVar[tuple[str, ...]] = ()
    """Names in `CATALOGUE` of what the benchmark is made of; if empty, its own name."""

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        task_id: Any = None,
        download: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(root, task_id, **options)
        self.download = download
        self.remedy = (
            f"pass root=<the folder that holds it>, or run `python -m t2v_lightning.data.download "
            f"{self.sources_of_task()[0]} --root <folder>`"
        )

    @property
    def task_names(self) -> list[str]:
        return [self.name]

    def sources_of_task(self) -> tuple[str, ...]:
        """Names in `CATALOGUE` of what this task is made of."""
        return self.sources or (self.name,)

    def prepare_data(self) -> None:
        """Fetches what is missing below `root` and verifies its checksum; Lightning calls this in one process of each
        machine.

        Raises:
            MissingDataError: `root` is None, or, with `download=False`, does not exist.
            DownloadError: no connection, too little space, or a wrong checksum.
        """
        if self.root is None or not self.download:
            self.require()
            return
        for name in self.sources_of_task():
            fetch_all(CATALOGUE[name], self.root)
