"""The meta-task of the Task2Vec paper: tasks of CUB-200-2011, then of iNaturalist 2018."""

from __future__ import annotations

import json
import os
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np

from t2v_lightning.data.base import FileDataModule, Split
from t2v_lightning.data.benchmarks.cub200 import CUB200, cub_groups
from t2v_lightning.data.benchmarks.inat2018 import INat2018
from t2v_lightning.data.benchmarks.taxonomy import TaxonGroup
from t2v_lightning.data.errors import UnknownTaskError
from t2v_lightning.data.images import open_file
from t2v_lightning.data.task import Task

_CUB_TASKS = 25


@cache
def inat_positions() -> tuple[int, ...]:
    """For each of the 207 iNat tasks of the meta-task, its number among the orders of `inat2018`.

    >>> len(inat_positions()), inat_positions()[100:103]
    (207, (100, 102, 103))
    """
    text = (
        files("t2v_lightning.data.benchmarks")
        .joinpath("inat2018_task_order.json")
        .read_text(encoding="utf-8")
    )
    return tuple(json.loads(text))


class CUBINat2018(FileDataModule):
    """Tasks 0..24 are those of `CUB200`, tasks 25..231 are orders of `INat2018`.

    A task needs only its own data. With a part of iNaturalist that has fewer orders there are fewer tasks.

    Args:
        root: folder that holds `cub/CUB_200_2011` and `inat2018`.
        task_id, options: see `TaskDataModule`.

    >>> CUBINat2018("data", task_id=15).task_name
    '[CUB] Corvidae (aves)'
    """

    name = "cub_inat2018"
    remedy = "run scripts/download_cub.sh <root> and scripts/download_inat2018.sh <root>"

    def __init__(
        self, root: str | os.PathLike[str] | None = None, task_id: int | None = None, **options: Any
    ) -> None:
        super().__init__(root, task_id, **options)
        part = CUB200 if self.task_id < _CUB_TASKS else INat2018
        self.remedy = part.remedy
        self.open_image = partial(open_file, str(self.root / part.image_folder) if self.root else "")

    @property
    def part(self) -> CUB200 | INat2018:
        """The same task as a task of CUB-200 or of iNaturalist."""
        if self.task_id < _CUB_TASKS:
            return CUB200(self.root, self.task_id, on_error=self.on_error)
        return INat2018(self.root, inat_positions()[self.task_id - _CUB_TASKS], on_error=self.on_error)

    @property
    def task_names(self) -> list[str]:
        return [
            *(_title("CUB", group) for group in cub_groups()),
            *(_title("iNat", group) for group in self._inat_groups()),
        ]

    @property
    def task_name(self) -> str:
        if self.task_id < _CUB_TASKS:
            return _title("CUB", cub_groups()[self.task_id])
        return _title("iNat", self._inat_groups()[self.task_id - _CUB_TASKS])

    @property
    def taxon(self) -> dict[str, str]:
        """The ranks that all species of the task share."""
        return self.part.taxon

    @property
    def family(self) -> str:
        return self.part.family

    def check_task_id(self, task_id: Any) -> Any:
        whole = isinstance(task_id, int) and not isinstance(task_id, bool)
        # Tasks of CUB do not need iNat, which may be missing.
        if whole and 0 <= task_id < _CUB_TASKS:
            return task_id
        there = self.root is not None and (self.root / INat2018.image_folder / "train2018.json").exists()
        last = _CUB_TASKS + (len(self._inat_groups()) if there else len(inat_positions())) - 1
        if not whole or not 0 <= task_id <= last:
            raise UnknownTaskError(
                f"got task_id={task_id!r} for {self.name!r}; allowed are 0..{last} (0..24: CUB, "
                f"25..{last}: iNat)"
            )
        return task_id

    def prepare_data(self) -> None:
        """Caches the annotations; Lightning calls this in one process of each machine."""
        self.part.prepare_data()

    def load_task(self, split: Split) -> Task[np.bytes_]:
        return self.part.load_task(split)

    def _inat_groups(self) -> list[TaxonGroup]:
        groups = INat2018(self.root).groups
        return [groups[position] for position in inat_positions() if position < len(groups)]


def _title(source: str, group: TaxonGroup) -> str:
    return f"[{source}] {group.name} ({group.taxon.get('class', '?').lower()})"
