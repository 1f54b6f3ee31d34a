"""iNaturalist 2018: telling the species of an order, or of a class, apart."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from t2v_lightning.data.base import FileDataModule, Split
from t2v_lightning.data.benchmarks.inat_annotations import (
    CATEGORIES,
    FILES,
    INatAnnotations,
    read_annotations,
)
from t2v_lightning.data.benchmarks.taxonomy import TaxonGroup, group_by_rank
from t2v_lightning.data.task import Task

INatLevel = Literal["order", "class"]


@lru_cache(maxsize=4)
def inat_groups(annotations: INatAnnotations, level: INatLevel = "order") -> list[TaxonGroup]:
    """Orders, or classes, by number of training images, the largest first; equal ones by their first annotation.

    Members are the categories that have training images, in the order of their names, as positions in
    `annotations.taxa`.

    >>> taxa = [{"order": "Fabales", "name": "Vicia faba"}, {"order": "Poales", "name": "Zea mays"}]
    >>> numbers = {"train": np.array([0, 1, 1], dtype=np.int32)}
    >>> [(g.name, g.members) for g in inat_groups(INatAnnotations({}, numbers, taxa))]
    [('Poales', [1]), ('Fabales', [0])]
    """
    numbers = annotations.categories["train"]
    found, firsts = np.unique(numbers, return_index=True)
    taxa = {int(number): annotations.taxa[number] for number in found[np.argsort(firsts)]}
    counts = np.bincount(numbers)
    groups = [
        group._replace(members=sorted(group.members, key=lambda number: (taxa[number]["name"], number)))
        for group in group_by_rank(taxa, level)
    ]
    return sorted(groups, key=lambda group: -counts[group.members].sum())


class INat2018(FileDataModule):
    """Telling related species apart (Van Horn et al., 2018), with the data in `root/inat2018`.

    The training images are those of `train2018.json`, the test images those of `val2018.json`; whether their files
    exist is only seen when they are opened. An order of one species is a task too, with one class, so that the
    numbers of the others do not depend on it; `CUBINat2018` leaves such orders out.

    Args:
        root, task_id, options: see `TaskDataModule`.
        level: `"order"` or `"class"`.

    Raises:
        ValueError: `level` is neither.
        AnnotationError: an annotation file contradicts itself.

    >>> INat2018().remedy
    'run scripts/download_inat2018.sh <root>'
    """

    name = "inat2018"
    remedy = "run scripts/download_inat2018.sh <root>"
    mean = (0.466, 0.471, 0.380)
    std = (0.195, 0.194, 0.192)
    image_folder = "inat2018"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        task_id: int | None = None,
        level: INatLevel = "order",
        **options: Any,
    ) -> None:
        if level not in ("order", "class"):
            raise ValueError(f"got level={level!r}; allowed are order and class")
        self.level: INatLevel = level
        super().__init__(root, task_id, **options)

    @property
    def groups(self) -> list[TaxonGroup]:
        """The groups of species; each is a task."""
        return inat_groups(self._annotations(), self.level)

    @property
    def task_names(self) -> list[str]:
        return [group.name for group in self.groups]

    @property
    def taxon(self) -> dict[str, str]:
        """The ranks that all species of the task share, such as `{"class": "Insecta", ...}`."""
        return self.groups[int(self.task_id)].taxon

    @property
    def family(self) -> str:
        return self.taxon.get("class", self.name)

    def prepare_data(self) -> None:
        """Caches the annotations; Lightning calls this in one process of each machine."""
        self._annotations()

    def load_task(self, split: Split) -> Task[np.bytes_]:
        annotations = self._annotations()
        members = self.groups[self.task_id].members
        label = np.full(len(annotations.taxa), -1, dtype=np.int64)
        label[members] = np.arange(len(members))
        labels = label[annotations.categories[split]]
        chosen = np.flatnonzero(labels >= 0)
        names = [annotations.taxa[number]["name"] for number in members]
        distinct = [
            name if names.count(name) == 1 else f"{name} ({m})"
            for name, m in zip(names, members, strict=True)
        ]
        return Task(annotations.names[split][chosen], labels[chosen], tuple(distinct))

    def _annotations(self) -> INatAnnotations:
        for file in (*FILES.values(), CATEGORIES):
            self.require("inat2018", file)
        return read_annotations(self.require("inat2018"))
