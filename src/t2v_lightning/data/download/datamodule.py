"""Benchmarks that `prepare_data` may fetch by itself, because they are free and not too large."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from t2v_lightning.data.base import TaskDataModule
from t2v_lightning.data.download.catalogue import CATALOGUE, fetch_all


class DownloadableDataModule(TaskDataModule):
    """A benchmark of `CATALOGUE`, in the folders that torchvision uses.

    Args:
        root: folder that holds the benchmark's own folder, or where it is made.
        task_id: see `TaskDataModule`.
        download: whether `prepare_data` fetches what is not there yet.
        options: see `TaskDataModule`.
    """

    sources: ClassVar[tuple[str, ...]] = ()
    """Names in the catalogue of what the benchmark is made of; by default its own."""

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
        """Names in the catalogue of what the task at hand is made of."""
        return self.sources or (self.name,)

    def prepare_data(self) -> None:
        """Fetch what is missing below `root`, checked by its checksum; on one process of a machine alone.

        Raises:
            MissingDataError: there is no root.
            DownloadError: no connection, no space, or a wrong checksum.
        """
        if self.root is None or not self.download:
            self.require()
            return
        for name in self.sources_of_task():
            fetch_all(CATALOGUE[name], self.root)
