"""What is known of the tasks as tables: in the terminal and as CSV."""

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
from t2v_lightning.report.comparison import task_names
from t2v_lightning.report.files import write_whole


def task_rows(embeddings: Sequence[Embedding], matrix: NDArray[np.float64]) -> list[dict[str, Any]]:
    """For each task its name, family, classes, images, ..., nearest task and the distance to it.

    ``accuracy`` and ``stderr`` (relative) are shares of 1, ``nearest`` is the number of a task; what is
    unknown is None.
    """
    apart = matrix + np.diag(np.full(len(matrix), np.inf))
    rows = []
    for number, (name, embedding) in enumerate(zip(task_names(embeddings), embeddings, strict=True)):
        meta, nearest = embedding.meta, int(apart[number].argmin())
        head = meta.get("head")
        rows.append(
            {
                "name": name,
                "family": str(meta.get("family") or ""),
                "classes": _finite(meta.get("num_classes")),
                "images": _finite(meta.get("samples")),
                "accuracy": _finite(head.get("accuracy")) if isinstance(head, dict) else None,
                "norm": _finite(embedding.norm),
                "stderr": _finite(embedding.relative_stderr),
                "nearest": nearest,
                "distance": float(matrix[number, nearest]),
            }
        )
    return rows


def text_rows(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows of :func:`task_rows` as texts below those of their header, empty where nothing is known."""
    header = ["task", "family", "K", "images", "accuracy", "norm", "stderr", "nearest", "distance"]
    texts = [
        [
            row["name"],
            row["family"],
            _text(row["classes"], "g"),
            _text(row["images"], "g"),
            _text(row["accuracy"], ".1%"),
            _text(row["norm"], ".3g"),
            _text(row["stderr"], ".1%"),
            rows[row["nearest"]]["name"],
            _text(row["distance"], ".3f"),
        ]
        for row in rows
    ]
    return [header, *texts]


def print_table(embeddings: Sequence[Embedding], matrix: NDArray[np.float64], console: Console) -> None:
    """One line a task: classes K, images, accuracy of the head, norm, relative standard error, nearest neighbour."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)  # columns apart by one character
    for column in ("task", "K", "images", "accuracy", "norm", "stderr", "nearest", "distance"):
        is_name = column in ("task", "nearest")
        table.add_column(column, justify="left" if is_name else "right", no_wrap=True)
    for name, _, *cells in text_rows(task_rows(embeddings, matrix))[1:]:
        table.add_row(*(Text(_printable(cell)) for cell in (name, *cells)))  # names may have square brackets
    console.print(table)


def write_csv(matrix: NDArray[np.float64], names: Sequence[str], path: Path) -> None:
    """The matrix [n, n] to the last digit, below and beside the names."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["task", *names])
            writer.writerows([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))

    write_whole(path, write)


def _finite(value: Any) -> float | None:
    """A number that is one: meta holds what others wrote."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e300 else None


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
