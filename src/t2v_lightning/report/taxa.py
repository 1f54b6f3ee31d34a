"""The taxa of tasks of CUB-200 and iNaturalist: their names, their order and their pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from t2v_lightning.data.benchmarks.known_taxa import known_taxa
from t2v_lightning.embedding import Embedding

_TITLE = re.compile(r"\[(CUB|iNat)\] (.+?)(?: \(.*\))?")
_CUB_TASKS = 25


def with_taxa(embeddings: Sequence[Embedding], root: Path | None = None) -> list[Embedding]:
    """The embeddings of CUB and iNat tasks in `task_order`, with their taxa, named like `[CUB] Corvidae (aves)`.

    Args:
        embeddings: of `cub_inat2018`, `cub200` or `inat2018`. The taxon of an embedding that does not carry
            it, such as those of the reference implementation, is looked up by name.
        root: folder of `inat2018/categories.json`, where names of iNat are looked up.

    Raises:
        ValueError: tasks whose taxon is not known.
    """
    bare = [e for e in embeddings if not _taxon(e)]
    known = known_taxa(root) if bare else {}
    unknown = [e.task_name or "?" for e in bare if _own_name(e).casefold() not in known]
    if unknown:
        hint = "" if root else " Give --data-root, the folder of inat2018/categories.json."
        raise ValueError(f"the taxon of {len(unknown)} tasks is not known: {', '.join(unknown[:5])}.{hint}")
    found = []
    for embedding in embeddings:
        taxon = _taxon(embedding) or known[_own_name(embedding).casefold()]
        group = taxon.get("class", "?")
        title = f"[{_source(embedding)}] {_own_name(embedding)} ({group.lower()})"
        found.append(embedding.with_meta(task_name=title, taxon=dict(taxon), family=group))
    return [found[i] for i in task_order(embeddings)]


def task_order(embeddings: Sequence[Embedding]) -> list[int]:
    """Positions of the embeddings, sorted by the number of their task; unsorted if one has no number."""
    numbers = [_task_id(e) for e in embeddings]
    known = [number for number in numbers if number is not None]
    return (
        np.argsort(known, kind="stable").tolist() if len(known) == len(numbers) else list(range(len(numbers)))
    )


def find_icons(
    embeddings: Sequence[Embedding], folder: Path | None, root: Path | None
) -> list[NDArray[np.float64] | None] | None:
    """Pictures of `load_icons` from `folder`, by default from a folder `iconic_taxa` in the usual places.

    Returns:
        The pictures; None where there is no such folder.

    Raises:
        FileNotFoundError: `folder` is given and does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist; --icons takes a folder of pictures <taxon>-200px.png"
        )
    usual = [*([root / "iconic_taxa"] if root else []), Path("static/iconic_taxa"), Path("iconic_taxa")]
    found = folder or next((path for path in usual if path.is_dir()), None)
    return load_icons(embeddings, found) if found else None


def load_icons(embeddings: Sequence[Embedding], folder: Path) -> list[NDArray[np.float64] | None]:
    """A picture [H, W, 3] of the taxon of each embedding, on white; inverted for tasks of CUB.

    It is `<taxon>-200px.png` of the class, else of the phylum, else of the kingdom, else `unknown-200px.png`; None
    where there is none of these.
    """
    icons: list[NDArray[np.float64] | None] = []
    for embedding in embeddings:
        taxon = _taxon(embedding)
        names = [taxon.get(rank, "").lower() for rank in ("class", "phylum", "kingdom")]
        # names come from files of others: only words may become part of a path
        words = [name for name in (*names, "unknown") if re.fullmatch(r"[\w -]+", name)]
        paths = (folder / f"{name}-200px.png" for name in words)
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            icons.append(None)
            continue
        with Image.open(path) as file:
            picture = Image.new("RGBA", file.size, "white")
            picture.alpha_composite(file.convert("RGBA"))
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float64) / 255
        icons.append(1 - pixels if _source(embedding) == "CUB" else pixels)
    return icons


def _taxon(embedding: Embedding) -> dict[str, str]:
    taxon = embedding.meta.get("taxon")
    return {str(k): str(v) for k, v in taxon.items()} if isinstance(taxon, dict) else {}


def _own_name(embedding: Embedding) -> str:
    match = _TITLE.fullmatch(embedding.task_name)
    return match.group(2) if match else embedding.task_name


def _source(embedding: Embedding) -> str:
    match = _TITLE.fullmatch(embedding.task_name)
    if match:
        return match.group(1)
    dataset = embedding.meta.get("dataset")
    name = dataset.get("name") if isinstance(dataset, dict) else dataset
    if name in ("cub200", "inat2018"):
        return "CUB" if name == "cub200" else "iNat"
    number = _task_id(embedding)
    return "CUB" if number is not None and number < _CUB_TASKS else "iNat"


def _task_id(embedding: Embedding) -> int | None:
    """The number of the task, which the reference implementation keeps with the settings of the dataset."""
    dataset = embedding.meta.get("dataset")
    settings: Any = dataset if isinstance(dataset, dict) else embedding.meta
    number = settings.get("task_id")
    return number if isinstance(number, int) else None
