"""What a task on the command line is, told by what it looks like."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from t2v_lightning._spelling import did_you_mean
from t2v_lightning.cli.settings import presets
from t2v_lightning.data.names import ALIASES
from t2v_lightning.data.places import TABLE_SUFFIXES, kind_of_path


class Source(NamedTuple):
    """A task.

    Attributes:
        name: of the folder that it may be written to.
        settings: of `python -m t2v_lightning` that name it.
        is_text: whether it is one for language models.
    """

    name: str
    settings: list[str]
    is_text: bool

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
    Source(name='digits', settings=['dataset=digits'], is_text=False)
    """
    path = Path(text).expanduser()
    name = ALIASES.get(text, text)
    if name in presets("dataset") and not path.is_dir():
        return Source(text, [f"dataset={name}"], is_for_texts(name))
    if kind := kind_of_path(path):
        title = path.resolve().name if path.is_dir() else path.stem
        return Source(title, [f"dataset={kind}", f"dataset.root={Source.quoted(str(path))}"], kind == "text")
    if path.exists():
        raise ValueError(
            f"{text} is a file; allowed are folders, tables that end in {', '.join(TABLE_SUFFIXES)}, and names of "
            "`t2v list datasets`"
        )
    near = did_you_mean(text, [*presets("dataset"), *ALIASES, *_beside(path)])
    raise ValueError(
        f"there is no file, folder or built-in task {text!r}{near or '; `t2v list datasets` names the built-in ones'}"
    )


def embeddings_in(place: str) -> list[Path]:
    """Files of embeddings in a place, if it is one that holds some."""
    from t2v_lightning.embedding.collection import find_embeddings

    try:
        return find_embeddings([place])
    except FileNotFoundError:
        return []


def check_places(*places: str) -> int:
    """How many tasks and embeddings there are in some places, said before torch is loaded.

    Raises:
        ValueError: as `source_of`, where a place holds neither.

    >>> check_places("digits", "faces")
    2
    >>> check_places("digits", "facse")
    Traceback (most recent call last):
    ...
    ValueError: there is no file, folder or built-in task 'facse'; did you mean 'faces'?
    """
    found = {place: len(embeddings_in(place)) for place in places}
    for place in (place for place, embeddings in found.items() if not embeddings):
        source_of(place)
    return sum(max(embeddings, 1) for embeddings in found.values())


def is_for_texts(dataset: str) -> bool:
    """Whether a dataset of that name holds texts, by what its file says.

    >>> is_for_texts("docstrings"), is_for_texts("digits")
    (True, False)
    """
    return "for language models" in presets("dataset")[dataset]


def _beside(path: Path) -> list[str]:
    """What stands where a path leads that does not exist, spelled as that path is."""
    try:
        return [str(path.with_name(entry.name)) for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        return []
