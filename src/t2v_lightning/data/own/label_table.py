"""Tables of images and labels: CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.errors import AnnotationError, MissingDataError
from t2v_lightning.data.images import pack_names
from t2v_lightning.data.task import Task

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
"""Endings of the files that count as tables."""


def read_table(path: Path) -> dict[str, list[Any]]:
    """The columns of a table by their names; cells of CSV and TSV files are strings.

    Raises:
        MissingDataError: there is no such file.
        AnnotationError: it is not a table, has two columns of one name, or a row of another length.
        ModuleNotFoundError: it is a Parquet file, and pyarrow is not installed.
    """
    if not path.exists():
        raise MissingDataError(f"table {path} does not exist: pass the right table= or root=")
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise AnnotationError(f"got table {path}; allowed are files that end in {', '.join(TABLE_SUFFIXES)}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",") if row]
    header = rows[0] if rows else []
    if len(set(header)) != len(header) or not header:
        raise AnnotationError(
            f"{path}: got the columns {', '.join(header) or '(none)'}: give each its own name"
        )
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise AnnotationError(
                f"{path}, row {number}: got {len(row)} cells for {len(header)} columns: give one for each column"
            )
    return {name: [row[column] for row in rows[1:]] for column, name in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Parquet tables need pyarrow: pip install 't2v-lightning[hf]', or save the table as CSV"
        ) from error
    try:
        columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    except (ArrowException, OSError) as error:
        raise AnnotationError(f"cannot read table {path} ({error}). Write it again") from error
    return columns


def check_columns(path: Path, table: Mapping[str, Sequence[Any]], names: Sequence[str]) -> None:
    """Checks that the table has these columns.

    Raises:
        AnnotationError: it lacks one; the message lists those that it has.
    """
    for name in names:
        if name not in table:
            raise AnnotationError(f"{path} has no column {name!r}; allowed are {', '.join(table)}")


def table_images(
    path: Path, table: Mapping[str, Sequence[Any]], rows: Sequence[int], image_column: str
) -> list[str]:
    """The file names in some rows of a table.

    Raises:
        AnnotationError: a cell is empty, or a file occurs twice.
    """
    images = [str(_filled(path, table[image_column][row], image_column, row)) for row in rows]
    if len(set(images)) != len(images):
        twice = Counter(images).most_common(1)[0][0]
        raise AnnotationError(f"{path}: image {twice} occurs more than once. Keep one row for each image")
    return images


def table_task(
    path: Path,
    table: Mapping[str, Sequence[Any]],
    rows: Sequence[int],
    image_column: str,
    label_column: str | Sequence[str],
    separator: str | None = None,
) -> Task[np.bytes_]:
    """Some rows of a table as a task.

    Args:
        path: where the table is from, for errors.
        table: columns by name.
        rows: row numbers from 0.
        image_column: column of file names.
        label_column: a column of classes (names or numbers) or of lists of classes; or several columns of 0
            and 1, each of them a label. Lists and several columns give many labels per sample.
        separator: what separates the classes in a cell of `label_column`, for many labels per sample.

    Raises:
        AnnotationError: a cell is empty, a file occurs twice, or a column of 0 and 1 holds something else.

    >>> table = {"file": ["a.jpg", "b.jpg"], "kind": ["red|round", "red"]}
    >>> task = table_task(Path("t.csv"), table, [0, 1], "file", "kind", separator="|")
    >>> task.names, task.labels.tolist()
    (('red', 'round'), [[1.0, 1.0], [1.0, 0.0]])
    """
    names = pack_names(table_images(path, table, rows, image_column))
    if not isinstance(label_column, str):
        columns = [[_flag(path, table[column][row], column, row) for row in rows] for column in label_column]
        return Task(names, np.array(columns, dtype=np.float32).T, tuple(label_column))
    cells = [_filled(path, table[label_column][row], label_column, row) for row in rows]
    if separator is not None:
        cells = [[part.strip() for part in str(cell).split(separator) if part.strip()] for cell in cells]
    many = bool(cells) and isinstance(cells[0], list)
    cells = [[str(label) for label in cell] if many else str(cell) for cell in cells]
    classes = _sorted({label for cell in cells for label in (cell if many else [cell])})
    return Task(names, label_array(cells, classes), tuple(classes))


def label_array(cells: Sequence[Any], classes: Sequence[Any]) -> NDArray[Any]:
    """Positions of the cells in `classes`: int64 [N], or float32 [N, K] of 0 and 1 if the cells are lists.

    >>> label_array([["round"], []], ["red", "round"]).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    numbers = {name: number for number, name in enumerate(classes)}
    if not (cells and isinstance(cells[0], list)):
        return np.array([numbers[cell] for cell in cells], dtype=np.int64)
    vectors = np.zeros((len(cells), len(classes)), dtype=np.float32)
    for row, cell in enumerate(cells):
        vectors[row, [numbers[label] for label in cell]] = 1
    return vectors


def _sorted(names: set[str]) -> list[str]:
    """Whole numbers by size, anything else in alphabetical order."""
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def _filled(path: Path, cell: Any, column: str, row: int) -> Any:
    if cell is None or cell == "":
        raise AnnotationError(f"{path}, row {row + 2}: column {column!r} is empty. Fill it or drop the row")
    return cell


def _flag(path: Path, cell: Any, column: str, row: int) -> int:
    if str(cell).strip().lower() not in ("0", "1", "0.0", "1.0", "true", "false"):
        raise AnnotationError(
            f"{path}, row {row + 2}: got {cell!r} in column {column!r}; allowed are 0 and 1"
        )
    return int(str(cell).strip().lower() in ("1", "1.0", "true"))
