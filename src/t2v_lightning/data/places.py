"""What a folder or a file holds, told from what stands there; without torch, which takes seconds to import."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, Literal

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
"""Endings of the files that count as tables."""

Kind = Literal["image_folder", "hf", "text"]
"""Names of the datamodules that read data of one's own."""

_FEW = 1000
"""Entries of a folder that are looked at."""


def kind_of_path(path: str | os.PathLike[str]) -> Kind | None:
    """The name of the datamodule that reads what stands at a path; None where none does.

    Texts are a table with a column `text` and none called `path`, a folder whose folders hold mostly `.txt` files, or a
    saved dataset of Hugging Face with a column of strings and none of images. All else is taken for images.

    >>> kind_of_path("no_such_folder") is None
    True
    """
    place = Path(path).expanduser()
    if place.is_dir():
        if is_saved_dataset(place):
            return "text" if _has_texts_only(place) else "hf"
        return "text" if _most_files_below(place) == ".txt" else "image_folder"
    if not place.is_file() or place.suffix.lower() not in TABLE_SUFFIXES:
        return None
    columns = _columns_of(place)
    return "text" if "text" in columns and "path" not in columns else "image_folder"


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` of Hugging Face `datasets` wrote the folder."""
    return any((folder / name).exists() for name in ("dataset_dict.json", "dataset_info.json"))


def _most_files_below(folder: Path) -> str | None:
    """The commonest ending of files in the folders in a folder and, as those may be splits, in the folders below."""
    suffixes = Counter[str]()
    for path in filter(Path.is_dir, islice((*folder.glob("*/"), *folder.glob("*/*/")), _FEW)):
        with os.scandir(path) as entries:
            suffixes.update(Path(entry.name).suffix for entry in islice(entries, _FEW) if entry.is_file())
    return suffixes.most_common(1)[0][0] if suffixes else None


def _has_texts_only(folder: Path) -> bool:
    """Whether the columns of a saved dataset, or of the splits in it, are strings and no images."""
    infos = [folder / "dataset_info.json", *sorted(folder.glob("*/dataset_info.json"))]
    try:
        features = next(json.loads(info.read_text())["features"] for info in infos if info.exists())
        kinds = [(kind.get("_type"), kind.get("dtype")) for kind in features.values()]
    except (StopIteration, OSError, ValueError, KeyError, AttributeError, TypeError):
        return False  # the datamodule says what is wrong
    return ("Value", "string") in kinds and all(kind != "Image" for kind, _ in kinds)


def _columns_of(table: Path) -> list[Any]:
    """The names of a table's columns; none where they cannot be read, as the datamodule says why."""
    try:
        if table.suffix.lower() == ".parquet":
            from pyarrow import parquet

            return list(parquet.read_schema(table).names)
        with table.open(encoding="utf-8-sig", newline="") as lines:
            if table.suffix.lower() == ".jsonl":
                return list(json.loads(next(line for line in lines if line.strip())))
            return next(csv.reader(lines, delimiter="\t" if table.suffix.lower() == ".tsv" else ","), [])
    except (StopIteration, OSError, ValueError, TypeError, ImportError, csv.Error):
        return []
