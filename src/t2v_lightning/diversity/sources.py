"""What stands for a dataset on the command line: files of texts too, which need no labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from t2v_lightning.data.own.label_table import check_columns, read_table
from t2v_lightning.data.places import TABLE_SUFFIXES
from t2v_lightning.task2vec.sources import as_task


def texts_or_task(place: str, of_texts: bool, column: str = "text") -> Any:
    """Texts for a probe that takes them, else what `embed` takes.

    Args:
        place: for texts a table with a column of them, a `.txt` file or a folder of such, each paragraph of which is a
            text; or, as for images, the name of a datamodule or what `as_task` takes.
        of_texts: whether the probe takes texts.
        column: of the texts in a table.

    Raises:
        FileNotFoundError, ValueError: there is no such place, or no text in it.
    """
    path = Path(place).expanduser()
    if not of_texts or not path.exists():
        return as_task(place)
    if path.suffix.lower() in TABLE_SUFFIXES:
        table = read_table(path)
        check_columns(path, table, [column], "text_column")
        texts = [str(text) for text in table[column] if text is not None]
    else:
        files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
        texts = [part for file in files for part in re.split(r"\n\s*\n", file.read_text(encoding="utf-8"))]
    found = [text for text in texts if text.strip()]
    if not found:
        raise ValueError(
            f"{path} holds no text; give a table ({', '.join(TABLE_SUFFIXES)}) with a column {column!r}, a .txt file, "
            "or a folder of .txt files"
        )
    return found
