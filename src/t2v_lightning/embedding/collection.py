"""Folders of embeddings: which files belong to one, in which order, and what they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from t2v_lightning.embedding.run_folder import EMBEDDING_FILE, LOGS, THUMBNAIL_FILE
from t2v_lightning.embedding.value import Embedding

_SUFFIXES = (".safetensors", ".npz", ".p", ".pkl", ".pickle")


def find_embeddings(places: Iterable[str | Path]) -> list[Path]:
    """Files of embeddings, by folder in the order of the numbers in their names.

    Args:
        places: files, or folders. Below a folder every `embedding.safetensors` counts (or `embedding.npz`, or
            the reference implementation's `embedding.p`), one for each folder; without any of these, every
            file of these formats directly in it.

    Raises:
        FileNotFoundError: a place does not exist, or a folder holds no embedding.
    """
    return [path for place in places for path in _below(Path(place))]


def thumbnails_of(paths: Iterable[Path]) -> list[Path | None]:
    """For each file of an embedding the picture in the TensorBoard log of its run, or None."""
    return [
        next(path.parent.glob(f"{LOGS}/**/{THUMBNAIL_FILE}"), None) if path.name == EMBEDDING_FILE else None
        for path in paths
    ]


def load_embeddings(paths: Iterable[Path]) -> list[Embedding]:
    """The embeddings in files; one without the name of a task gets that of its file or folder.

    Raises:
        ValueError: a file cannot be read; the message names it.
    """
    embeddings = []
    for path in paths:
        embedding = Embedding.load(path)
        if not embedding.task_name:
            name = path.parent.name if path.stem == "embedding" else path.stem
            embedding = embedding.with_meta(task_name=name)
        embeddings.append(embedding)
    return embeddings


def _below(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise FileNotFoundError(f"{place} does not exist; give folders or files of embeddings")
    by_folder: dict[Path, Path] = {}
    for suffix in _SUFFIXES:
        for path in filter(Path.is_file, place.rglob(f"embedding{suffix}")):
            by_folder.setdefault(path.parent, path)
    alone = (path for path in place.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    found = list(by_folder.values()) or list(alone)
    if not found:
        raise FileNotFoundError(
            f"{place} holds no embeddings: looked for {EMBEDDING_FILE} in it and below, then for any file of "
            f"{', '.join(_SUFFIXES)} in it"
        )
    return sorted(found, key=lambda path: _by_number(str(path.relative_to(place))))


def _by_number(text: str) -> list[tuple[int, str]]:
    """A key that puts job 2 before job 10."""
    return [(int(part or -1), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]
