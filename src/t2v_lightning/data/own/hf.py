"""Image datasets of the Hugging Face `datasets` library."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from t2v_lightning.data.algebra import align, hold_out
from t2v_lightning.data.base import SPLIT_NAMES, Split, TaskDataModule
from t2v_lightning.data.errors import AnnotationError, ImageError, MissingDataError
from t2v_lightning.data.images import open_bytes, open_rgb
from t2v_lightning.data.own.labels import (
    Unlabelled,
    check_label_options,
    check_likelihood,
    label_array,
    labelled,
    real_targets,
    refuse_real_numbers,
)
from t2v_lightning.data.places import is_saved_dataset
from t2v_lightning.data.task import Task

_LABEL_COLUMNS = ("label", "labels", "fine_label")


class HuggingFace(TaskDataModule):
    """An image dataset of the Hugging Face `datasets` library (extra `hf`).

    Args:
        root: a folder written by `save_to_disk`; or, with `dataset`, the folder that holds it or the
            cache of downloads.
        task_id: None or 0: a dataset is one task.
        dataset: name of a dataset on the hub, or of a `save_to_disk` folder below `root`.
        config: name of the hub dataset's configuration, if it has several.
        image_column: a column of images; None takes the first.
        label_column: a column of classes or of lists of classes (Bernoulli likelihood), or of real numbers or lists
            of these with `likelihood="gaussian"`; None takes the first of type ClassLabel, or else the one named
            label, labels or fine_label.
        train_split: name of the training split.
        test_split: name of the test split; None takes test or validation (see `SPLIT_NAMES`). Where neither exists,
            or for the name of the training split, it is every fifth image of a class of the training split.
        likelihood: `"gaussian"` for regression on real numbers; None for what the labels are, classes or lists of
            classes.
        unlabelled: `"raise"` stops at images without a label (None, NaN, or -1 beside labels from 0), `"skip"`
            leaves them out and says how many they are.
        options: see `TaskDataModule`.

    Raises:
        ModuleNotFoundError: `datasets` is not installed.
        MissingDataError: the dataset or the split does not exist.
        AnnotationError: a column does not exist, or labels are missing or not of the kind that is allowed.
        LabelError: the labels do not suit `likelihood`.
        ValueError: `likelihood` or `unlabelled` is none of those that there are.

    >>> HuggingFace("cache", dataset="food101").task_names
    ['food101']
    """

    name = "hf"
    remedy = "pass root=<a folder written by save_to_disk>, or dataset=<its name on the Hugging Face hub>"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        task_id: int | None = None,
        dataset: str | None = None,
        config: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        train_split: str = "train",
        test_split: str | None = None,
        likelihood: str | None = None,
        unlabelled: Unlabelled = "raise",
        **options: Any,
    ) -> None:
        self.dataset, self.config = dataset, config
        self.image_column, self.label_column = image_column, label_column
        self.train_split, self.test_split = train_split, test_split
        check_label_options(likelihood, unlabelled)
        self._likelihood, self.unlabelled = likelihood, unlabelled
        self._splits: dict[str, Any] | None = None
        self._labelled: dict[str, Task[Any]] = {}
        super().__init__(root, task_id, **options)

    @property
    def task_names(self) -> list[str]:
        title = self.dataset or (self.root.resolve().name if self.root else self.name)
        return [title if self.config is None else f"{title}/{self.config}"]

    @property
    def family(self) -> str:
        return self.task_names[0]

    @property
    def likelihood(self) -> str:  # type: ignore[override]
        """`"gaussian"` if that was asked for, `"bernoulli"` if the labels are lists of classes, else `"softmax"`."""
        return check_likelihood(self._likelihood, self._task("train").labels, f"dataset {self.task_name!r}")

    def prepare_data(self) -> None:
        """Fetches the dataset if it is missing; Lightning calls this in one process of each machine."""
        self._read_splits()

    def load_task(self, split: Split) -> Task[Any]:
        splits = self._read_splits()
        if self.train_split not in splits:
            raise MissingDataError(
                f"dataset {self.task_name!r} has no split {self.train_split!r}; allowed are "
                f"{', '.join(splits)}; pass train_split="
            )
        parts = {"train": self._split_task(splits, self.train_split)}
        held = self.test_split or next((name for name in SPLIT_NAMES["test"] if name in splits), None)
        if held in (None, self.train_split):
            parts["train"], parts["test"] = hold_out(parts["train"])
        elif held not in splits:
            raise MissingDataError(
                f"dataset {self.task_name!r} has no split {held!r}; allowed are {', '.join(splits)}; pass "
                "test_split="
            )
        elif split == "test":
            parts["test"] = self._split_task(splits, held)
        return parts["train"] if split == "train" else align(parts["train"], parts["test"])

    def _read_splits(self) -> dict[str, Any]:
        if self._splits is None:
            loaded = self._load()
            self._splits = dict(loaded) if isinstance(loaded, dict) else {self.train_split: loaded}
            column = self._image_column(next(iter(self._splits.values())).features)
            encoded = _library().Image(decode=False)
            images = [
                part.select_columns([column]).cast_column(column, encoded) for part in self._splits.values()
            ]
            self.open_image = partial(_open_row, images, column)
        return self._splits

    def _load(self) -> Any:
        library = _library()
        if self.root is None and self.dataset is None:
            self.require()
        folder = Path(self.root or ".", self.dataset or "")
        if is_saved_dataset(folder):
            return library.load_from_disk(str(folder))
        if self.dataset is None:
            raise MissingDataError(f"{folder} was not written by save_to_disk: {self.remedy}")
        try:
            return library.load_dataset(self.dataset, self.config, cache_dir=self.root and str(self.root))
        except (OSError, ValueError) as error:
            raise MissingDataError(
                f"cannot load dataset {self.dataset!r} ({error}): {self.remedy}"
            ) from error

    def _split_task(self, splits: dict[str, Any], name: str) -> Task[Any]:
        if name not in self._labelled:  # once, as it says which images it leaves out
            self._labelled[name] = self._read_labels(splits, name)
        return self._labelled[name]

    def _read_labels(self, splits: dict[str, Any], name: str) -> Task[Any]:
        part = splits[name]
        column = self._label_column(part.features)
        title = f"Split {name!r} of dataset {self.task_name!r}, column {column!r}"
        cells: list[Any] = list(part.select_columns([column])[:][column])
        rows = labelled(cells, title, self.unlabelled, self._likelihood == "gaussian")
        cells, kind = [cells[row] for row in rows], part.features[column]
        if self._likelihood == "gaussian":
            labels, names = real_targets(cells, [column], title)
        else:
            labels, names = _labels(cells, kind, title)
        return Task(np.stack([np.full(len(rows), list(splits).index(name)), rows], axis=1), labels, names)

    def _image_column(self, features: Any) -> str:
        found = [column for column, kind in features.items() if isinstance(kind, _library().Image)]
        return self._column(features, self.image_column, found, "image_column")

    def _label_column(self, features: Any) -> str:
        library = _library()
        typed = [c for c, kind in features.items() if isinstance(_inner(kind), library.ClassLabel)]
        named = [column for column in _LABEL_COLUMNS if column in features]
        return self._column(features, self.label_column, typed + named, "label_column")

    def _column(self, features: Any, asked: str | None, found: list[str], option: str) -> str:
        if asked in features or (asked is None and found):
            return asked or found[0]
        what = f"no column {asked!r}" if asked is not None else f"no column that could be the {option}"
        raise AnnotationError(
            f"dataset {self.task_name!r} has {what}; allowed are {', '.join(features)}; pass {option}="
        )


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Hugging Face datasets need the library datasets: pip install 't2v-lightning[hf]'"
        ) from error
    return datasets


def _inner(kind: Any) -> Any:
    """The type of a list's items, or the type itself."""
    return getattr(kind, "feature", kind)


def _open_row(images: list[Any], column: str, sample: NDArray[np.int64]) -> Image.Image:
    """The image of a (split, row) pair."""
    place, row = (int(number) for number in sample)
    cell = images[place][row][column]
    if cell is None:
        raise ImageError(f"row {row} of split {place} has no image: add it, or pass on_error='skip'")
    if cell["bytes"] is None:
        return open_rgb(cell["path"])
    return open_bytes(cell["bytes"], f"in row {row} of split {place}")


def _labels(cells: list[Any], kind: Any, title: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Labels int64 [N], or float32 [N, K] for lists, and the class names."""
    many = bool(cells) and isinstance(cells[0], list)
    values = [value for cell in cells for value in (cell if many else [cell])]
    if not all(isinstance(value, (int, str)) for value in values):
        raise AnnotationError(
            f"{title}: got values of type {kind}; allowed are classes (whole numbers or strings) and lists of classes; "
            "pass label_column=, or likelihood='gaussian' for regression on real numbers"
        )
    names = list(getattr(_inner(kind), "names", None) or [])
    refuse_real_numbers({str(value) for value in values}, title)
    classes = list(range(len(names))) or sorted(set(values))
    if not set(values) <= set(classes):
        raise AnnotationError(
            f"{title}: got {min(set(values) - set(classes))}; allowed are 0..{len(names) - 1}; relabel or drop "
            "those rows"
        )
    return label_array(cells, classes), tuple(names or map(str, classes))
