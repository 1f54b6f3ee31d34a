"""Tables of tasks: in the terminal and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.run_folder import whole_file
from t2v_lightning.embedding.summary import items_of, likelihood_of, measured, tested
from t2v_lightning.report.comparison import task_names

NAMES = ("task", "family", "nearest")
"""Columns of names; the others hold numbers."""


def task_rows(embeddings: Sequence[Embedding], matrix: NDArray[np.float64]) -> list[dict[str, Any]]:
    """For each task its name, family, classes, images, ..., nearest task and the distance to it.

    `images` is the number of its images, or of what else `items` says that it is made of.
    `accuracy` is what the likelihood measures a head by, such as accuracy (a share of 1) or R^2, on the images that the
    head was fitted to, and `under_noise` the same of the variational method's network; `measure` is its name. `test` is
    the accuracy, mean average precision or R^2 on images that the fit has not seen, and `test_measure` its name.
    `accuracy_text`, `under_noise_text` and `test_text` are for a person to read. `stderr` (relative) is a share of 1,
    `nearest` is the number of a task; what is unknown is None.
    """
    apart = matrix + np.diag(np.full(len(matrix), np.inf))
    rows = []
    for number, (name, embedding) in enumerate(zip(task_names(embeddings), embeddings, strict=True)):
        meta, nearest = embedding.meta, int(apart[number].argmin())
        likelihood = likelihood_of(meta)
        accuracy, under_noise = _finite(measured(meta, "head")), _finite(measured(meta, "variational"))
        test = _finite(tested(meta))
        rows.append(
            {
                "name": name,
                "family": str(meta.get("family") or ""),
                "classes": _finite(meta.get("num_classes")),
                "items": items_of(meta),
                "images": _finite(meta.get("samples")),
                "measure": likelihood.short,
                "accuracy": accuracy,
                "accuracy_text": "" if accuracy is None else likelihood.accuracy_text(accuracy),
                "under_noise": under_noise,
                "under_noise_text": "" if under_noise is None else likelihood.accuracy_text(under_noise),
                "test_measure": likelihood.test_short,
                "test": test,
                "test_text": "" if test is None else likelihood.accuracy_text(test),
                "norm": _finite(embedding.norm),
                "stderr": _finite(embedding.relative_stderr),
                "nearest": nearest,
                "distance": float(matrix[number, nearest]),
            }
        )
    return rows


def text_rows(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The header and the rows of `task_rows` as texts, empty where nothing is known.

    The columns of the standard error, of the accuracy under noise that the variational method has in its place, and of
    the accuracy on test images are there where some task has one. Where tasks differ in what they are measured by, its
    name is in their cells.
    """
    columns = {
        "task": [row["name"] for row in rows],
        "family": [row["family"] for row in rows],
        "K": [_text(row["classes"], "g") for row in rows],
        items_of_rows(rows): [_text(row["images"], "g") for row in rows],
        **_measured("train", rows, "measure", "accuracy_text"),
        "under noise": [row["under_noise_text"] for row in rows],
        **_measured("test", rows, "test_measure", "test_text"),
        "norm": [_text(row["norm"], ".3g").replace("e+0", "e") for row in rows],
        "stderr": [_text(row["stderr"], ".1%") for row in rows],
        "nearest": [rows[row["nearest"]]["name"] for row in rows],
        "distance": [_text(row["distance"], ".3f" if abs(row["distance"]) < 1e6 else ".2e") for row in rows],
    }
    optional = [name for name in columns if name in ("under noise", "stderr") or name.startswith("test ")]
    for name in optional:
        if not any(columns[name]):
            del columns[name]
    return [list(columns), *map(list, zip(*columns.values(), strict=True))]


def print_table(embeddings: Sequence[Embedding], matrix: NDArray[np.float64], console: Console) -> None:
    """A line for each task: all of `text_rows` except the family; N is the number of images or texts, in 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)  # one character between columns
    rows = task_rows(embeddings, matrix)
    header, *lines = text_rows(rows)
    for column in header:
        if column != "family":
            # as wide as its longest word
            heading = "N" if column == items_of_rows(rows) else column.replace(" ", "\n", 1)
            table.add_column(heading, justify="left" if column in NAMES else "right", no_wrap=True)
    for name, _, *cells in lines:
        table.add_row(*(Text(_printable(cell)) for cell in (name, *cells)))  # names may have square brackets
    console.print(table)


def write_csv(matrix: NDArray[np.float64], names: Sequence[str], path: Path) -> None:
    """The matrix [n, n] to the last digit, with the names of its rows and columns."""
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["task", *names])
        writer.writerows([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))


def items_of_rows(rows: Sequence[dict[str, Any]]) -> str:
    """What all tasks are made of: "images", "texts", or "items" where there are both."""
    kinds = {row["items"] for row in rows}
    return kinds.pop() if len(kinds) == 1 else "items"


def _measured(images: str, rows: Sequence[dict[str, Any]], measure: str, text: str) -> dict[str, list[str]]:
    """A column of what a head reaches on some images, under a name that says on which."""
    names = {row[measure] for row in rows}
    if len(names) == 1:
        return {f"{images} {names.pop()}": [row[text] for row in rows]}
    return {f"{images} fit": [f"{row[measure]} {row[text]}" if row[text] else "" for row in rows]}


def _finite(value: Any) -> float | None:
    """The value where it is a finite number: meta may hold anything."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e300 else None


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _printable(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
