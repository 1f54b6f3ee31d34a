"""Tables of images or texts and their labels: CSV, TSV, Parquet and JSON Lines files."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.data.base import SPLIT_NAMES, Split
from t2v_lightning.data.errors import AnnotationError, MissingDataError
from t2v_lightning.data.images import pack_names
from t2v_lightning.data.own.labels import class_labels, is_missing, real_targets
from t2v_lightning.data.places import TABLE_SUFFIXES
from t2v_lightning.data.task import Task

_SPLITS: dict[str, Split] = {name: split for split, names in SPLIT_NAMES.items() for name in names}


def read_table(path: Path) -> dict[str, list[Any]]:
    """The columns of a table by their names; cells of CSV and TSV files are strings.

    Raises:
        MissingDataError: there is no such file.
        AnnotationError: it is not a table, is in another encoding than UTF-8 or UTF-16, or has two columns of one
            name, a row of another length, or a line that is no JSON object with the keys of the first.
        ModuleNotFoundError: it is a Parquet file, and pyarrow is not installed.
    """
    if not path.exists():
        raise MissingDataError(f"table {path} does not exist: pass the right table= or root=")
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise AnnotationError(f"got table {path}; allowed are files that end in {', '.join(TABLE_SUFFIXES)}")
    try:
        content = path.read_bytes()
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        lines = io.StringIO(content.decode(encoding), newline="")
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        if path.suffix.lower() == ".jsonl":
            return _read_json_lines(path, lines)
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise AnnotationError(
            f"{path}, line {line}: got bytes that are not {error.encoding.upper()}, such as "
            f"0x{content[error.start]:02x}; allowed are tables in UTF-8; save it again in that encoding"
        ) from error
    except csv.Error as error:
        raise AnnotationError(f"cannot read table {path} ({error}); write it again") from error
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


def _read_json_lines(path: Path, lines: Iterable[str]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise AnnotationError(
                f"{path}, line {number}: got no JSON ({error}); write one object a line"
            ) from error
        if not isinstance(row, dict) or (columns and row.keys() != columns.keys()):
            allowed = f" with the keys {', '.join(columns)}" if columns else ""
            got = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise AnnotationError(f"{path}, line {number}: got {got}; allowed is a JSON object{allowed}")
        for name, cell in row.items():
            columns.setdefault(name, []).append(cell)
    return columns


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


def check_columns(
    path: Path, table: Mapping[str, Sequence[Any]], names: Sequence[str], *options: str
) -> None:
    """Checks that the table has these columns, which the options name.

    Raises:
        AnnotationError: it lacks one; the message lists those that it has.
    """
    for name in names:
        if name not in table:
            raise AnnotationError(
                f"{path} has no column {name!r}; allowed are {', '.join(table)}. "
                f"Name those of your table by {' and '.join(f'{option}=' for option in options)}"
            )


def table_images(
    path: Path, table: Mapping[str, Sequence[Any]], rows: Sequence[int], image_column: str
) -> list[str]:
    """The file names in some rows of a table.

    Raises:
        AnnotationError: a cell is empty, or a file occurs twice.
    """
    images = [str(filled(path, table[image_column][row], image_column, row)) for row in rows]
    if len(set(images)) != len(images):
        twice = Counter(images).most_common(1)[0][0]
        raise AnnotationError(f"{path}: image {twice} occurs more than once. Keep one row for each image")
    return images


def label_cells(table: Mapping[str, Sequence[Any]], label_column: str | Sequence[str]) -> list[Any]:
    """The labels of each row: a cell, or a tuple of the cells of several columns."""
    if isinstance(label_column, str):
        return list(table[label_column])
    return list(zip(*(table[column] for column in label_column), strict=True))


def table_task(
    path: Path,
    table: Mapping[str, Sequence[Any]],
    rows: Sequence[int],
    image_column: str,
    label_column: str | Sequence[str],
    separator: str | None = None,
    likelihood: str | None = None,
) -> Task[np.bytes_]:
    """Some rows of a table as a task.

    Args:
        path: where the table is from, for errors.
        table: columns by name.
        rows: row numbers from 0, of rows that hold labels.
        image_column: column of file names.
        label_column: a column of classes (names or numbers) or of lists of classes; or several columns of 0
            and 1, each of them a label. Lists and several columns give many labels per sample.
        separator: what separates the classes in a cell of `label_column`, for many labels per sample.
        likelihood: `"gaussian"` for columns of real numbers.

    Raises:
        AnnotationError: a cell is empty, a file occurs twice, or a label is not of the kind that is allowed.

    >>> table = {"file": ["a.jpg", "b.jpg"], "kind": ["red|round", "red"]}
    >>> task = table_task(Path("t.csv"), table, [0, 1], "file", "kind", separator="|")
    >>> task.names, task.labels.tolist()
    (('red', 'round'), [[1.0, 1.0], [1.0, 0.0]])
    """
    names = pack_names(table_images(path, table, rows, image_column))
    return Task(names, *table_labels(path, table, rows, label_column, separator, likelihood))


def table_labels(
    path: Path,
    table: Mapping[str, Sequence[Any]],
    rows: Sequence[int],
    label_column: str | Sequence[str],
    separator: str | None = None,
    likelihood: str | None = None,
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The labels of some rows and the names of the classes, as for `Task`; arguments as for `table_task`."""
    cells = label_cells(table, label_column)
    cells = [cells[row] for row in rows]
    columns = [label_column] if isinstance(label_column, str) else list(label_column)
    title = f"{path}, column {', '.join(columns)}"
    if separator is not None:
        cells = [[part.strip() for part in str(cell).split(separator) if part.strip()] for cell in cells]
    if likelihood == "gaussian":
        return real_targets(cells, columns, title)
    if not isinstance(label_column, str):
        flags = [
            [_flag(path, *parts, row) for parts in zip(cell, columns, strict=True)]
            for cell, row in zip(cells, rows, strict=True)
        ]
        return np.array(flags, dtype=np.float32), tuple(columns)
    return class_labels(cells, title)


def table_tasks(path: Path, table: Mapping[str, Sequence[Any]], task_column: str) -> list[str]:
    """The names of the tasks in a table: those in its column of tasks, or, without one, that of the file."""
    cells = enumerate(table.get(task_column, []))
    return sorted({str(filled(path, cell, task_column, row)) for row, cell in cells}) or [path.stem]


def split_of(path: Path, table: Mapping[str, Sequence[Any]], split_column: str, row: int) -> Split:
    """The split that a row belongs to; "train" in a table without a column of splits.

    Raises:
        AnnotationError: the cell names no split.
    """
    if split_column not in table:
        return "train"
    split = str(table[split_column][row]).lower()
    if split not in _SPLITS:
        raise AnnotationError(
            f"{path}, row {line_of(path, row)}: got split {split!r}; allowed are {', '.join(_SPLITS)}"
        )
    return _SPLITS[split]


def line_of(path: Path, row: int) -> int:
    """What messages call a row: its line in the file, as tables have a header and JSON Lines have none."""
    return row + (1 if path.suffix.lower() == ".jsonl" else 2)


def filled(path: Path, cell: Any, column: str, row: int) -> Any:
    """The cell; AnnotationError if it is empty."""
    if is_missing(cell):
        raise AnnotationError(
            f"{path}, row {line_of(path, row)}: column {column!r} is empty. Fill it or drop the row"
        )
    return cell


def _flag(path: Path, cell: Any, column: str, row: int) -> int:
    if str(cell).strip().lower() not in ("0", "1", "0.0", "1.0", "true", "false"):
        raise AnnotationError(
            f"{path}, row {line_of(path, row)}: got {cell!r} in column {column!r}; allowed are 0 and 1"
        )
    return int(str(cell).strip().lower() in ("1", "1.0", "true"))
