"""What a task on the command line is, told by what it looks like."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from t2v_lightning.data import get_datamodule, list_datamodules
from t2v_lightning.data.own.label_table import TABLE_SUFFIXES
from t2v_lightning.data.registry import ALIASES, datamodule_of_path


class Source(NamedTuple):
    """A task.

    Attributes:
        name: of the folder that it may be written to.
        settings: of `python -m t2v_lightning` that name it.
    """

    name: str
    settings: list[str]

    @staticmethod
    def quoted(value: str) -> str:
        """A value as Hydra's grammar takes it.

        >>> Source.quoted("data/cats"), Source.quoted("my cats=2")
        ('data/cats', "'my cats=2'")
        """
        if re.fullmatch(r"[\w./~-]+", value):
            return value
        # Hydra reads a backslash as one, but before a quote
        escaped = re.sub(r"(\\+)$", r"\1\1", re.sub(r"(\\*)'", r"\1\1\\'", value))
        return f"'{escaped}'"


def source_of(text: str) -> Source:
    """The task that a folder, a table or a name stands for.

    Raises:
        ValueError: it is none of these; the message says what is allowed.

    >>> source_of("digits")
    Source(name='digits', settings=['dataset.name=digits'])
    """
    path = Path(text).expanduser()
    if text in (*list_datamodules(), *ALIASES) and not path.is_dir():
        return Source(text, [f"dataset.name={text}"])
    if kind := datamodule_of_path(path):
        name = path.resolve().name if path.is_dir() else path.stem
        return Source(name, [f"dataset.name={kind}", f"dataset.root={Source.quoted(str(path))}"])
    if path.exists():
        raise ValueError(
            f"{text} is a file; allowed are folders, tables that end in {', '.join(TABLE_SUFFIXES)}, and names of "
            "`t2v list datasets`"
        )
    if len(path.parts) > 1:
        raise ValueError(f"{text} does not exist; give a folder, a table, or a name of `t2v list datasets`")
    get_datamodule(text)  # raises, with names that are close
    raise AssertionError
