"""Folders of texts, read as the columns of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from t2v_lightning.data.errors import AnnotationError, MissingDataError
from t2v_lightning.data.own.folder_tree import split_folders, subfolders

Columns = dict[str, list[Any]]
"""Cells of each column by its name, equally many."""


def folder_columns(root: Path, text: str, label: str, split: str) -> Columns:
    """The `.txt` files at any depth in the folder of each class, in alphabetical order, as three columns.

    Args:
        root: holds the folders of the classes, or folders `train` and `test` (see `SPLIT_NAMES`) that do.
        text, label, split: what the columns are called; without a folder `test` there is none of splits.

    Raises:
        MissingDataError: there is no class, or a class has no text.
        AnnotationError: a file is not in UTF-8.
    """
    columns: Columns = {text: [], label: [], split: []}
    splits = split_folders(root)
    for name, folder in splits.items():
        classes = subfolders(folder)
        if not classes:
            raise MissingDataError(
                f"{folder} holds no folder: make one for each class, with its .txt files inside"
            )
        for kind in classes:
            files = sorted(kind.rglob("*.txt"))
            if not files:
                raise MissingDataError(f"{kind} holds no .txt file: add some, or remove the folder")
            columns[text] += [_read(file) for file in files]
            columns[label] += [kind.name] * len(files)
            columns[split] += [name] * len(files)
    if len(splits) == 1:
        del columns[split]
    return columns


def saved_columns(folder: Path, split: str) -> Columns:
    """The columns of a dataset that `save_to_disk` wrote, with a column of splits if it has several of these.

    Classes are named where the dataset names them.

    Raises:
        ModuleNotFoundError: `datasets` is not installed.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Hugging Face datasets need the library datasets: pip install 't2v-lightning[hf]'"
        ) from error
    loaded: Any = datasets.load_from_disk(str(folder))
    parts = dict(loaded) if isinstance(loaded, dict) else {"": loaded}
    columns: Columns = {}
    for name, part in parts.items():
        for column, kind in part.features.items():
            cells = part[column][:]
            names = getattr(kind, "names", None)
            if names:
                cells = [names[cell] if cell is not None and cell >= 0 else None for cell in cells]
            columns.setdefault(column, []).extend(cells)
        if len(parts) > 1:
            columns.setdefault(split, []).extend([name] * len(part))
    return columns


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{file} is not in UTF-8 ({error.reason}); save it again in that encoding"
        ) from error
