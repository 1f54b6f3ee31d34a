"""CUB-200-2011: species of birds, as tasks inside their orders, families or genera."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from t2v_lightning.data.algebra import select_classes
from t2v_lightning.data.base import FileDataModule, Split
from t2v_lightning.data.benchmarks.taxonomy import TaxonGroup, group_by_rank
from t2v_lightning.data.errors import AnnotationError
from t2v_lightning.data.images import pack_names
from t2v_lightning.data.task import Task

CUBLevel = Literal["paper", "order", "family", "genus"]


@cache
def cub_groups(level: CUBLevel = "paper") -> list[TaxonGroup]:
    """Groups of two or more species, in the order of their first classes; members are class numbers 0..199.

    `"paper"` gives the 10 orders of birds other than Passeriformes, then the 15 families of that order; any other
    level gives the groups of that rank over all birds.

    >>> [len(cub_groups(level)) for level in ("paper", "order", "family", "genus")]
    [25, 11, 28, 37]
    """
    text = files("t2v_lightning.data.benchmarks").joinpath("cub200_taxonomy.csv").read_text(encoding="utf-8")
    birds = {"kingdom": "Animalia", "phylum": "Chordata", "class": "Aves"}
    taxa = {int(row["class_id"]) - 1: {**birds, **row} for row in csv.DictReader(text.splitlines())}
    if level != "paper":
        return [group for group in group_by_rank(taxa, level) if len(group.members) > 1]
    songbirds = {number: taxon for number, taxon in taxa.items() if taxon["order"] == "Passeriformes"}
    others = {number: taxon for number, taxon in taxa.items() if number not in songbirds}
    groups = [*group_by_rank(others, "order"), *group_by_rank(songbirds, "family")]
    return [group for group in groups if len(group.members) > 1]


class CUB200(FileDataModule):
    """Telling related species of birds apart (Wah et al., 2011), with the data in `root/cub/CUB_200_2011`.

    Args:
        root, task_id, options: see `TaskDataModule`.
        level: `"paper"` (25 tasks), `"order"`, `"family"` or `"genus"`; see `cub_groups`.

    Raises:
        ValueError: `level` is none of these.
        AnnotationError: a list of images or labels contradicts itself.

    >>> birds = CUB200("data", task_id=10)
    >>> birds.task_name, birds.taxon["order"]
    ('Icteridae', 'Passeriformes')
    """

    name = "cub200"
    remedy = "run scripts/download_cub.sh <root>"
    mean = (0.4856, 0.4994, 0.4324)
    std = (0.2321, 0.2277, 0.2665)
    folder = "cub/CUB_200_2011"
    image_folder = "cub/CUB_200_2011/images"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        task_id: int | None = None,
        level: CUBLevel = "paper",
        **options: Any,
    ) -> None:
        if level not in ("paper", "order", "family", "genus"):
            raise ValueError(f"got level={level!r}; allowed are paper, order, family and genus")
        self.level: CUBLevel = level
        super().__init__(root, task_id, **options)

    @property
    def task_names(self) -> list[str]:
        return [group.name for group in cub_groups(self.level)]

    @property
    def taxon(self) -> dict[str, str]:
        """The ranks that all species of the task share, such as `{"class": "Aves", ...}`."""
        return cub_groups(self.level)[int(self.task_id)].taxon

    @property
    def family(self) -> str:
        return self.taxon["class"]

    def load_task(self, split: Split) -> Task[np.bytes_]:
        folder = self.require(self.folder)
        names = _read_list(folder / "images.txt")
        labels = _read_list(folder / "image_class_labels.txt", names)
        is_train = _read_list(folder / "train_test_split.txt", names)
        classes = _read_list(folder / "classes.txt")
        chosen = [image for image in names if (is_train[image] == "1") == (split == "train")]
        numbers = {number: position for position, number in enumerate(classes)}
        for image in chosen:
            if labels[image] not in numbers:
                raise AnnotationError(
                    f"{folder / 'image_class_labels.txt'} gives image {image} the class {labels[image]}, "
                    "which classes.txt does not list: fetch the data again"
                )
        birds: Task[np.bytes_] = Task(
            pack_names([names[image] for image in chosen]),
            np.array([numbers[labels[image]] for image in chosen], dtype=np.int64),
            _class_names(classes.values()),
        )
        members = [
            numbers[str(m + 1)] for m in cub_groups(self.level)[self.task_id].members if str(m + 1) in numbers
        ]
        return self.check_files(select_classes(birds, members), split)


def _class_names(listed: Iterable[str]) -> tuple[str, ...]:
    """`001.Black_footed_Albatross` without its number, unless two classes then have the same name."""
    names = tuple(listed)
    plain = tuple(name.split(".", 1)[-1].replace("_", " ") for name in names)
    return plain if len(set(plain)) == len(names) else names


def _read_list(path: Path, ids: dict[str, str] | None = None) -> dict[str, str]:
    """The values in a file whose lines are an id and a value; `ids` are those that must be there, and no others.

    Raises:
        AnnotationError: a line has another form, or an id occurs twice, is unknown or is missing.
    """
    values: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        identity, _, value = line.strip().partition(" ")
        if not value:
            raise AnnotationError(
                f"{path}, line {number}: got {line!r}, but a line is an id and a value: fetch the data again"
            )
        if identity in values:
            raise AnnotationError(f"{path}, line {number}: id {identity} occurs twice: fetch the data again")
        values[identity] = value
    if ids is not None and (odd := sorted(values.keys() ^ ids.keys(), key=len)):
        lacking = "has no line for" if odd[0] in ids else "names"
        also = "images.txt lists" if odd[0] in ids else "images.txt does not list"
        raise AnnotationError(f"{path} {lacking} image {odd[0]}, which {also}: fetch the data again")
    return values
