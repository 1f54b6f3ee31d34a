"""Folders of embeddings: which files belong to one, in which order, and what they hold."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from t2v_lightning.embedding.run_folder import (
    EMBEDDING_FILE,
    LOGS,
    OVERRIDES_FILE,
    SWEEP_MARKER,
    THUMBNAIL_FILE,
)
from t2v_lightning.embedding.value import Embedding

log = logging.getLogger(__name__)

_FEW = 8
"""Names of folders that a line may hold."""

_SUFFIXES = (".safetensors", ".npz", ".p", ".pkl", ".pickle")


def find_embeddings(places: Iterable[str | Path]) -> list[Path]:
    """Files of embeddings, by folder in the order of the numbers in their names.

    Args:
        places: files, or folders. Below a folder every `embedding.safetensors` counts (or `embedding.npz`, or
            the reference implementation's `embedding.p`), one for each folder; without any of these, every
            file of these formats directly in it. In the folder of sweeps the jobs of the last one count; those of
            earlier ones are left out, with a warning that names them.

    Raises:
        FileNotFoundError: a place does not exist, or a folder holds no embedding.
    """
    return [path for place in places for path in _below(Path(place))]


def jobs_of_sweep(folder: Path) -> list[Path]:
    """Folders of the jobs of the last sweep into a folder, in their order.

    Raises:
        FileNotFoundError: the folder is not that of a sweep.
    """
    marker = folder / SWEEP_MARKER
    if names := marker.read_text(encoding="utf-8").splitlines():
        return [folder / name for name in names]
    began = marker.stat().st_mtime
    jobs = [path.parents[1] for path in folder.glob(f"**/{OVERRIDES_FILE}") if path.stat().st_mtime >= began]
    return sorted(jobs, key=lambda job: (number_of_job(job), _by_number(str(job))))


def left_out(folder: Path, jobs: Iterable[Path]) -> list[Path]:
    """Folders below that of a sweep that hold an embedding of an earlier one."""
    found = {path.parent for path in folder.glob(f"**/{EMBEDDING_FILE}")} - {*jobs}
    return sorted(found, key=lambda job: _by_number(str(job)))


def number_of_job(job: Path) -> int:
    """The place of a job in its sweep; -1 where Hydra has not recorded one."""
    try:
        text = (job / OVERRIDES_FILE).with_name("hydra.yaml").read_text(encoding="utf-8")
    except OSError:
        return -1
    found = re.search(r"^    num: (\d+)$", text, flags=re.MULTILINE)
    return int(found[1]) if found else -1


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
    if (place / SWEEP_MARKER).is_file():
        return _of_sweep(place)
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


def _of_sweep(folder: Path) -> list[Path]:
    jobs = jobs_of_sweep(folder)
    if others := left_out(folder, jobs):
        log.warning("left out, as they belong to earlier sweeps: %s", names_of(others, folder))
    found = [job / EMBEDDING_FILE for job in jobs if (job / EMBEDDING_FILE).is_file()]
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no embedding of its last sweep: run it again, or give the folders of jobs"
        )
    return found


def names_of(jobs: Sequence[Path], folder: Path) -> str:
    """The first few folders of jobs below that of a sweep, and how many more there are.

    >>> names_of([Path(f"sweep/{number}") for number in range(12)], Path("sweep"))
    '0, 1, 2, 3, 4, 5, 6, 7 and 4 more'
    """
    more = f" and {len(jobs) - _FEW} more" if len(jobs) > _FEW else ""
    return ", ".join(str(job.relative_to(folder)) for job in jobs[:_FEW]) + more


def _by_number(text: str) -> list[tuple[int, str]]:
    """A key that puts job 2 before job 10."""
    return [(int(part or -1), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]
