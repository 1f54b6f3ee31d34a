"""Your own texts: a table of texts and labels, a folder of files for each class, or a Hugging Face dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import default_collate

from t2v_lightning.data.algebra import align, hold_out
from t2v_lightning.data.base import Split, TaskDataModule
from t2v_lightning.data.dataset import as_it_is
from t2v_lightning.data.errors import AnnotationError
from t2v_lightning.data.own.label_table import (
    check_columns,
    filled,
    label_cells,
    line_of,
    read_table,
    split_of,
    table_labels,
    table_tasks,
)
from t2v_lightning.data.own.labels import Unlabelled, check_label_options, check_likelihood, labelled
from t2v_lightning.data.own.several import say_which_task
from t2v_lightning.data.own.text_sources import Columns, folder_columns, saved_columns
from t2v_lightning.data.places import TABLE_SUFFIXES, is_saved_dataset
from t2v_lightning.data.task import Task

Text = str | tuple[str, ...]
"""A text, or a pair of texts."""


class TextTable(TaskDataModule):
    """Your own texts, for probes that are language models.

    `root` is a table with a column of texts and one of labels, which may have columns of splits and of tasks; or a
    folder that `save_to_disk` of Hugging Face `datasets` wrote, whose columns are read in the same way; or a folder
    with a folder of `.txt` files for each class, which may stand in folders `train` and `test`. Where no split is
    given, every fifth text of a class is a test text. All texts are held in memory.

    Args:
        root: the table, or the folder.
        task_id: number of the task, in alphabetical order of their names.
        table: CSV, TSV, Parquet or JSON Lines file; a relative path starts from `root`.
        text_column: its column of texts, or two columns whose texts are pairs, such as questions and answers.
        label_column: its column of classes, or several columns of 0 and 1 (Bernoulli likelihood). With
            `likelihood="gaussian"` one column of real numbers, or several.
        label_separator: what separates several labels in one cell (Bernoulli likelihood).
        split_column, task_column: its columns of splits and tasks, if it has them.
        likelihood: `"gaussian"` for regression on real numbers; None for what the labels are, classes or several
            labels a text.
        unlabelled: `"raise"` stops at rows without a label (empty, NaN, or -1 beside labels from 0), `"skip"` leaves
            them out and says how many they are.
        test_every: one of this many texts of a class is a test text, where no split is given.
        options: see `TaskDataModule`.

    Raises:
        MissingDataError: the folder or the table does not exist.
        AnnotationError: a column does not exist, a text is empty, or labels are not of the kind that is allowed.
        LabelError: the labels do not suit `likelihood`.
        ValueError: `likelihood` or `unlabelled` is none of those that there are.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "notes.csv")
    >>> _ = path.write_text("text,label\\n" + "".join(f"note {n},{'ab'[n % 2]}\\n" for n in range(10)))
    >>> notes = TextTable(path)
    >>> notes.setup()
    >>> notes.class_names, len(notes.train_dataset), notes.test_dataset[0]
    (['a', 'b'], 8, ('note 8', 0))
    """

    name = "text"
    remedy = "pass root=<a CSV, TSV, Parquet or JSON Lines file, or a folder with one of .txt files for each class>"
    in_memory: ClassVar[bool] = True
    open_image = staticmethod(as_it_is)
    collate = staticmethod(default_collate)

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        task_id: int | None = None,
        table: str | os.PathLike[str] | None = None,
        text_column: str | list[str] = "text",
        label_column: str | list[str] = "label",
        label_separator: str | None = None,
        split_column: str = "split",
        task_column: str = "task",
        likelihood: str | None = None,
        unlabelled: Unlabelled = "raise",
        test_every: int = 5,
        **options: Any,
    ) -> None:
        self.table = None if table is None else Path(table)
        self.text_column, self.label_column = text_column, label_column
        self.label_separator = label_separator
        self.split_column, self.task_column = split_column, task_column
        self.test_every, self.unlabelled = test_every, unlabelled
        check_label_options(likelihood, unlabelled)
        self._likelihood = likelihood
        self._columns: Columns | None = None
        self._parts: dict[Split, Task[Text]] | None = None
        # The base looks up the tasks, which are below the root.
        self.root = None if root is None else Path(root).expanduser()
        super().__init__(root, task_id, **options)
        if self.root is not None:
            labels = self._task("train").labels
            self.likelihood = check_likelihood(likelihood, labels, f"{self._source()}")
            say_which_task(self._source(), self.task_names, task_id)

    @property
    def family(self) -> str:
        return self._source().stem

    @property
    def task_names(self) -> list[str]:
        if self.root is None:  # so that a datamodule without data can be described
            return [self.name]
        return table_tasks(self._source(), self._read(), self.task_column)

    def load_task(self, split: Split) -> Task[Text]:
        if self._parts is None:
            parts = self._read_parts()
            if "test" not in parts:
                parts["train"], parts["test"] = hold_out(parts["train"], self.test_every)
            self._parts = {"train": parts["train"], "test": align(parts["train"], parts["test"])}
        return self._parts[split]

    def _source(self) -> Path:
        root = self.require()
        return (root if self.table is None else root / self.table).absolute()

    def _read(self) -> Columns:
        if self._columns is None:
            path = self._source()
            if path.suffix.lower() in TABLE_SUFFIXES or not path.is_dir():
                columns = read_table(path)
            elif is_saved_dataset(path):
                columns = saved_columns(path, self.split_column)
            else:
                columns = folder_columns(
                    path, self._text_columns()[0], str(self.label_column), self.split_column
                )
            labels = [self.label_column] if isinstance(self.label_column, str) else self.label_column
            check_columns(path, columns, [*self._text_columns(), *labels], "text_column", "label_column")
            self._columns = columns
        return self._columns

    def _text_columns(self) -> list[str]:
        return [self.text_column] if isinstance(self.text_column, str) else list(self.text_column)

    def _read_parts(self) -> dict[Split, Task[Text]]:
        columns, path = self._read(), self._source()
        names = columns.get(self.task_column)
        own = [
            r
            for r in range(len(next(iter(columns.values()))))
            if names is None or str(names[r]) == self.task_name
        ]
        cells = label_cells(columns, self.label_column)
        title = f"{path}, column {self.label_column!r}"
        kept = labelled(
            [cells[row] for row in own],
            title,
            self.unlabelled,
            self._likelihood == "gaussian",
            [line_of(path, row) for row in own],
        )
        rows: dict[Split, list[int]] = {}
        for place in kept:
            rows.setdefault(split_of(path, columns, self.split_column, own[place]), []).append(own[place])
        if "train" not in rows:
            raise AnnotationError(
                f"{path} has no train texts of task {self.task_name!r}: mark some as train in column "
                f"{self.split_column!r}"
            )
        return {split: self._part(path, columns, chosen) for split, chosen in rows.items()}

    def _part(self, path: Path, columns: Columns, rows: list[int]) -> Task[Text]:
        texts: list[Text] = []
        for row in rows:
            parts = tuple(str(filled(path, columns[name][row], name, row)) for name in self._text_columns())
            texts.append(parts[0] if len(parts) == 1 else parts)
        labels = table_labels(path, columns, rows, self.label_column, self.label_separator, self._likelihood)
        return Task(texts, *labels)
