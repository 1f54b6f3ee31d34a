"""Reading a folder of embeddings, and writing files that are whole or not there."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from t2v_lightning.callbacks.examples import THUMBNAIL_FILE
from t2v_lightning.embedding.value import Embedding

EMBEDDING_FILE = "embedding.safetensors"
_SUFFIXES = (".safetensors", ".npz", ".p", ".pkl", ".pickle")


def find_embeddings(places: Iterable[str | Path]) -> list[Path]:
    """Files of embeddings, by folder in the order of the numbers in their names.

    Args:
        places: files, or folders. Below a folder every ``embedding.safetensors`` counts (or ``.npz``, or
            the reference implementation's ``embedding.p``), one for each folder; without any of these, every
            file of these formats directly in it.

    Raises:
        FileNotFoundError: a place is not there, or a folder holds no embedding.
    """
    return [path for place in places for path in _below(Path(place))]


def thumbnails_of(paths: Iterable[Path]) -> list[Path | None]:
    """For each file of an embedding the picture that its run has put into its TensorBoard log, if it has."""
    return [
        next(path.parent.glob(f"tensorboard/**/{THUMBNAIL_FILE}"), None)
        if path.name == EMBEDDING_FILE
        else None
        for path in paths
    ]


def load_embeddings(paths: Iterable[Path]) -> list[Embedding]:
    """The embeddings in files; one without the name of a task gets that of its file, or else of its folder.

    Raises:
        ValueError: a file cannot be read; the message names it.
    """
    embeddings = []
    for path in paths:
        embedding = Embedding.load(path)
        if not embedding.task_name:
            name = path.parent.name if path.stem == "embedding" else path.stem
            embedding = with_meta(embedding, task_name=name)
        embeddings.append(embedding)
    return embeddings


def with_meta(embedding: Embedding, **changes: Any) -> Embedding:
    """The same embedding with other values in ``meta``.

    >>> with_meta(Embedding([1.0], [1.0], meta={"seed": 0}), task_name="digits").meta
    {'seed': 0, 'task_name': 'digits'}
    """
    names = ("fisher", "scale", "stderr", "layers", "group_sums", "group_weights")
    arrays = {name: getattr(embedding, name) for name in names}
    return Embedding(**arrays, meta={**embedding.meta, **changes})


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file with the suffix of ``path``, which then takes the place of it."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _below(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise FileNotFoundError(f"{place} is not there; give folders or files of embeddings.")
    by_folder: dict[Path, Path] = {}
    for suffix in _SUFFIXES:
        for path in filter(Path.is_file, place.rglob(f"embedding{suffix}")):
            by_folder.setdefault(path.parent, path)
    alone = (path for path in place.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    found = list(by_folder.values()) or list(alone)
    if not found:
        raise FileNotFoundError(
            f"{place} holds no embeddings: looked for {EMBEDDING_FILE} in it and below, then for any file of "
            f"{', '.join(_SUFFIXES)} in it."
        )
    return sorted(found, key=lambda path: _by_number(str(path.relative_to(place))))


def _by_number(text: str) -> list[tuple[int, str]]:
    """A key that puts job 2 before job 10."""
    return [(int(part or -1), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]
