"""Your own images: a folder for each class, or a table of files and labels."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from t2v_lightning.data.algebra import align, hold_out
from t2v_lightning.data.base import FileDataModule, Split
from t2v_lightning.data.errors import AnnotationError, LabelError
from t2v_lightning.data.images import open_file
from t2v_lightning.data.own.folder_tree import find_tasks, folder_task
from t2v_lightning.data.own.label_table import (
    check_columns,
    label_cells,
    read_table,
    split_of,
    table_images,
    table_task,
    table_tasks,
)
from t2v_lightning.data.own.labels import Unlabelled, check_label_options, check_likelihood, labelled
from t2v_lightning.data.own.several import say_which_task
from t2v_lightning.data.places import TABLE_SUFFIXES
from t2v_lightning.data.task import Task


class ImageFolder(FileDataModule):
    """Your own images.

    Without a table, `root` is a tree of folders, `class/image` or `task/class/image`. Folders `train` and `test`
    (or `val`) on top, or inside each task, are the splits. A table has a column of files and one of labels, and may
    have columns of splits and of tasks. Where no split is given, every fifth image of a class is a test image.

    Args:
        root: the tree of folders, the folder that a table's file names start from, or the table itself.
        task_id: number of the task, in alphabetical order of their names.
        table: CSV, TSV, Parquet or JSON Lines file; a relative path starts from `root`.
        image_column: its column of file names.
        label_column: its column of classes, or several columns of 0 and 1 (Bernoulli likelihood). With
            `likelihood="gaussian"` one column of real numbers, or several.
        label_separator: what separates several labels in one cell (Bernoulli likelihood).
        split_column, task_column: its columns of splits and tasks, if it has them.
        likelihood: `"gaussian"` for regression on real numbers; None for what the labels are, classes or several
            labels an image.
        unlabelled: `"raise"` stops at rows without a label (empty, NaN, or -1 beside labels from 0), `"skip"` leaves
            them out and says how many they are.
        test_every: one of this many images of a class is a test image, where no split is given.
        options: see `TaskDataModule`.

    Raises:
        MissingDataError: a folder, the table or an image does not exist.
        AnnotationError: the table lacks a column, has an empty cell or names an image twice, or labels are not of
            the kind that is allowed.
        LabelError: the labels do not suit `likelihood`.
        ValueError: `likelihood` or `unlabelled` is none of those that there are.

    >>> import tempfile
    >>> from PIL import Image
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (root / name).mkdir()
    ...     for number in range(5):
    ...         Image.new("RGB", (8, 8)).save(root / name / f"{number}.png")
    >>> animals = ImageFolder(root)
    >>> animals.setup()
    >>> animals.class_names, len(animals.train_dataset), len(animals.test_dataset)
    (['cat', 'dog'], 8, 2)
    """

    name = "image_folder"
    remedy = "pass root=<a folder with a folder for each class, or a CSV, TSV, Parquet or JSON Lines file>"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        task_id: int | None = None,
        table: str | os.PathLike[str] | None = None,
        image_column: str = "path",
        label_column: str | list[str] = "label",
        label_separator: str | None = None,
        split_column: str = "split",
        task_column: str = "task",
        likelihood: str | None = None,
        unlabelled: Unlabelled = "raise",
        test_every: int = 5,
        **options: Any,
    ) -> None:
        base = None if root is None else Path(root).expanduser()
        if base is not None and base.suffix.lower() in TABLE_SUFFIXES and base.is_file():
            base, table = base.parent, base.name
        self.table = None if table is None else Path(table)
        self.image_column, self.label_column = image_column, label_column
        self.label_separator = label_separator
        self.split_column, self.task_column = split_column, task_column
        self.test_every = test_every
        check_label_options(likelihood, unlabelled)
        self._likelihood, self.unlabelled = likelihood, unlabelled
        self._columns: dict[str, list[Any]] | None = None
        self._tasks: list[str] | None = None
        self._parts: dict[Split, Task[np.bytes_]] | None = None
        # The base looks up the tasks, which are below the root.
        self.root = base
        super().__init__(base, task_id, **options)
        self.open_image = partial(open_file, str(base or ""))
        if base is not None and self.table is not None:
            title = f"table {self._table_path()}"
            self.likelihood = check_likelihood(likelihood, self._task("train").labels, title)
        elif likelihood not in (None, "softmax"):
            raise LabelError(
                f"got likelihood={likelihood!r} for a tree of folders, which gives one class an image; allowed is "
                "softmax; pass table= for other labels"
            )
        if base is not None:
            say_which_task(base if self.table is None else self._table_path(), self.task_names, task_id)

    @property
    def family(self) -> str:
        return self.require().resolve().name

    @property
    def task_names(self) -> list[str]:
        if self._tasks is None:
            self._tasks = self._find_task_names()
        return self._tasks

    def load_task(self, split: Split) -> Task[np.bytes_]:
        if self._parts is None:
            parts = self._table_parts() if self.table is not None else self._folder_parts()
            if "test" not in parts:
                parts["train"], parts["test"] = hold_out(parts["train"], self.test_every)
            self._parts = {"train": parts["train"], "test": align(parts["train"], parts["test"])}
        return self.check_files(self._parts[split], split)

    def _find_task_names(self) -> list[str]:
        if self.table is None:
            return sorted(find_tasks(self.require()))
        columns = self._read_columns()
        return table_tasks(self._table_path(), columns, self.task_column)

    def _folder_parts(self) -> dict[Split, Task[np.bytes_]]:
        folders = find_tasks(self.require())[self.task_name]
        return {split: folder_task(self.require(), folder) for split, folder in folders.items()}

    def _table_parts(self) -> dict[Split, Task[np.bytes_]]:
        columns, path = self._read_columns(), self._table_path()
        own_rows = [
            row
            for row in range(len(columns[self.image_column]))
            if self.task_column not in columns or str(columns[self.task_column][row]) == self.task_name
        ]
        cells = label_cells(columns, self.label_column)
        real = self._likelihood == "gaussian"
        title = f"{path}, column {self.label_column!r}"
        numbers = [row + 2 for row in own_rows]
        rows: dict[Split, list[int]] = {}
        for place in labelled([cells[row] for row in own_rows], title, self.unlabelled, real, numbers):
            split = split_of(path, columns, self.split_column, own_rows[place])
            rows.setdefault(split, []).append(own_rows[place])
        if "train" not in rows:
            raise AnnotationError(
                f"{path} has no train images of task {self.task_name!r}: mark some as train in column "
                f"{self.split_column!r}"
            )
        # An image in both splits would be tested on after it was trained on.
        table_images(path, columns, [row for own in rows.values() for row in own], self.image_column)
        return {
            split: table_task(
                *(path, columns, own, self.image_column, self.label_column),
                *(self.label_separator, self._likelihood),
            )
            for split, own in rows.items()
        }

    def _read_columns(self) -> dict[str, list[Any]]:
        if self._columns is None:
            columns = read_table(self._table_path())
            labels = [self.label_column] if isinstance(self.label_column, str) else self.label_column
            check_columns(
                self._table_path(), columns, [self.image_column, *labels], "image_column", "label_column"
            )
            self._columns = columns
        return self._columns

    def _table_path(self) -> Path:
        return self.require() / (self.table or "")
