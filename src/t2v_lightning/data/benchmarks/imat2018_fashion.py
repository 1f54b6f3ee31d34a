"""iMaterialist Fashion 2018: attributes of clothes, singly or by type."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.base import FileDataModule, Split
from t2v_lightning.data.cache import cached_arrays
from t2v_lightning.data.errors import AnnotationError
from t2v_lightning.data.images import pack_names
from t2v_lightning.data.task import Task

IMatLevel = Literal["attribute", "type", "category"]
_FILES: dict[Split, str] = {"train": "train", "test": "validation"}
_TYPES = (2, 3, 4, 5, 6, 8, 9)
_CATEGORIES = ("pants", "shoes", "other")


class _Label(NamedTuple):
    """A line of `labels.csv`."""

    number: int
    type: int
    name: str
    type_name: str
    category: str


class IMat2018Fashion(FileDataModule):
    """Attributes of clothes (Guo et al., 2019), with the data in `root/imat2018/fashion`.

    Args:
        root, task_id, options: see `TaskDataModule`.
        level: what a task is. `"attribute"`: whether a picture has attribute `task_id` + 1 of `labels.csv`
            (softmax of two classes). `"type"`: which attributes of one type it has, the types being colour, gender,
            material, neckline, pattern, sleeve and style (Bernoulli; pictures with none are left out).
            `"category"`: which pants, which shoes, or which other article it shows (softmax; pictures with several
            are left out).

    Raises:
        ValueError: `level` is none of these.
        AnnotationError: an annotation file contradicts itself.

    >>> shoes = IMat2018Fashion("data", task_id=1, level="category")
    >>> shoes.task_names, shoes.likelihood
    (['pants', 'shoes', 'other'], 'softmax')
    """

    name = "imat2018_fashion"
    family = "clothes"
    remedy = (
        "fetch it from kaggle.com/c/imaterialist-challenge-fashion-2018 into <root>/imat2018/fashion: train/ "
        "and validation/ of <imageId>.jpg, train.json, validation.json and labels.csv"
    )
    image_folder = "imat2018/fashion"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        task_id: int | None = None,
        level: IMatLevel = "attribute",
        **options: Any,
    ) -> None:
        if level not in ("attribute", "type", "category"):
            raise ValueError(f"got level={level!r}; allowed are attribute, type and category")
        self.level: IMatLevel = level
        self.likelihood = "bernoulli" if level == "type" else "softmax"
        super().__init__(root, task_id, **options)

    @property
    def task_names(self) -> list[str]:
        if self.level == "category":
            return list(_CATEGORIES)
        labels = self._labels()
        if self.level == "type":
            names = {label.type: label.type_name for label in labels}
            return [names[number] for number in _TYPES if number in names]
        return _distinct([label.name for label in labels], labels)

    def prepare_data(self) -> None:
        """Caches the annotations; Lightning calls this in one process of each machine."""
        for split in _FILES:
            self._annotations(split)

    def load_task(self, split: Split) -> Task[np.bytes_]:
        labels = self._labels()
        if self.level == "attribute":
            names, carries = self._carried(split, [labels[self.task_id]])
            own = self.task_names[self.task_id]
            task: Task[np.bytes_] = Task(names, carries[:, 0].astype(np.int64), (f"not {own}", own))
            return self.check_files(task, split)
        if self.level == "type":
            present = [number for number in _TYPES if any(label.type == number for label in labels)]
            wanted = [label for label in labels if label.type == present[self.task_id]]
        else:
            wanted = [label for label in labels if label.category == _CATEGORIES[self.task_id]]
        names, carries = self._carried(split, wanted)
        titles = tuple(_distinct([label.name for label in wanted], wanted))
        counts = carries.sum(axis=1)
        chosen = np.flatnonzero(counts >= 1 if self.level == "type" else counts == 1)
        vectors = carries[chosen]
        targets = vectors.astype(np.float32) if self.level == "type" else vectors.argmax(axis=1)
        return self.check_files(Task(names[chosen], targets, titles), split)

    def _carried(
        self, split: Split, wanted: Sequence[_Label]
    ) -> tuple[NDArray[np.bytes_], NDArray[np.bool_]]:
        """Names [N] of all annotated pictures, and which of the wanted labels each has: bool [N, K]."""
        arrays = self._annotations(split)
        column = np.full(int(np.iinfo(np.uint16).max) + 1, -1, dtype=np.int64)
        column[[label.number for label in wanted]] = np.arange(len(wanted))
        columns = column[arrays["labels"]]
        rows = np.repeat(np.arange(len(arrays["names"])), arrays["counts"])
        carries = np.zeros((len(arrays["names"]), len(wanted)), dtype=bool)
        carries[rows[columns >= 0], columns[columns >= 0]] = True
        return arrays["names"], carries

    def _labels(self) -> list[_Label]:
        return _read_labels(self.require("imat2018", "fashion", "labels.csv"))

    def _annotations(self, split: Split) -> dict[str, NDArray[Any]]:
        path = self.require("imat2018", "fashion", f"{_FILES[split]}.json")
        return cached_arrays([path], f"{_FILES[split]}-1", partial(_read_annotations, path))


def _read_labels(path: Path) -> list[_Label]:
    """Labels by number.

    Raises:
        AnnotationError: a line is not a label, or a number occurs twice.
    """
    labels: dict[int, _Label] = {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    for line, row in enumerate(rows, start=2):
        try:
            number, kind, name, kind_name, is_pants, is_shoe = row
            category = "pants" if is_pants == "yes" else "shoes" if is_shoe == "yes" else "other"
            label = _Label(int(number), int(kind), name, kind_name, category if int(kind) == 1 else "")
        except ValueError as error:
            raise AnnotationError(
                f"{path}, line {line}: got {','.join(row)!r}, but a line is label id, task id, label name, "
                "task name, is-pants and is-shoe: fetch it again"
            ) from error
        if label.number in labels:
            raise AnnotationError(
                f"{path}, line {line}: label id {label.number} occurs twice: fetch it again"
            )
        labels[label.number] = label
    return [labels[number] for number in sorted(labels)]


def _read_annotations(path: Path) -> Mapping[str, NDArray[Any]]:
    """Names of the annotated pictures, how many labels each has, and these: bytes [N], int32 [N], uint16 [M].

    Raises:
        AnnotationError: the file cannot be read, an id occurs twice, or an annotation is of a picture that is not
            listed.
    """
    try:
        content = json.loads(path.read_bytes(), object_hook=_shorten)
        images, annotations = content["images"], content["annotations"]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise AnnotationError(f"cannot read {path} ({error!r}): fetch it again") from error
    listed = set(images)
    if len(listed) != len(images):
        raise AnnotationError(f"{path} lists an imageId more than once: fetch it again")
    seen: set[str] = set()
    for image, _ in annotations:
        if image not in listed or image in seen:
            wrong = "twice" if image in seen else "but does not list it as an image"
            raise AnnotationError(f"{path} annotates imageId {image} {wrong}: fetch it again")
        seen.add(image)
    return {
        "names": pack_names(f"{path.stem}/{image}.jpg" for image, _ in annotations),
        "counts": np.array([len(numbers) for _, numbers in annotations], dtype=np.int32),
        "labels": np.concatenate([np.empty(0, np.uint16), *(numbers for _, numbers in annotations)]),
    }


def _shorten(item: dict[str, Any]) -> Any:
    """Keeps only what is needed of an image or annotation while the file is read."""
    if "labelId" in item:
        return str(item["imageId"]), np.array([int(number) for number in item["labelId"]], dtype=np.uint16)
    return str(item["imageId"]) if "imageId" in item else item


def _distinct(names: Sequence[str], labels: Sequence[_Label]) -> list[str]:
    """The names; one that several labels have gets its type or, if that is not enough, its number."""
    typed = [
        name if names.count(name) == 1 else f"{name} ({label.type_name})"
        for name, label in zip(names, labels, strict=True)
    ]
    return [
        name if typed.count(name) == 1 else f"{name} {label.number}"
        for name, label in zip(typed, labels, strict=True)
    ]
