"""Do embeddings of tasks know the tree of life? Distances between tasks against those of their taxa.

After figure 3 of Achille et al., Task2Vec, ICCV 2019, arXiv:1902.03545.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from t2v_lightning.data.benchmarks.known_taxa import known_taxa
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.collection import with_meta
from t2v_lightning.plots.style import ACCENT, FAINT, INK, new_axes, settle

Matrix = NDArray[np.float64]
Taxon = Mapping[str, str]

LEVELS = ("order", "class", "phylum", "kingdom")
"""Ranks by which two taxa can be alike: sharing the first is distance 0, the next 1, ..., none 4."""

_TITLE = re.compile(r"\[(CUB|iNat)\] (.+?)(?: \(.*\))?")
_CUB_TASKS = 25


def taxonomic_distances(taxa: Sequence[Taxon]) -> Matrix:
    """Float64 [n, n]: 0 same order, 1 same class, 2 same phylum, 3 same kingdom, 4 none of these.

    >>> crow = {"kingdom": "Animalia", "class": "Aves", "order": "Passeriformes"}
    >>> taxonomic_distances([crow, {**crow, "order": "Strigiformes"}, {"kingdom": "Plantae"}])
    array([[0., 1., 4.],
           [1., 0., 4.],
           [4., 4., 0.]])
    """
    distances = np.full((len(taxa), len(taxa)), float(len(LEVELS)))
    for distance, rank in reversed(list(enumerate(LEVELS))):
        names = [(taxon.get(rank) or f"unknown {i}").casefold() for i, taxon in enumerate(taxa)]
        _, numbers = np.unique(names, return_inverse=True)
        distances[numbers[:, None] == numbers] = distance
    np.fill_diagonal(distances, 0)
    return distances


def neighbourhood_curve(matrix: Matrix, taxonomic: Matrix) -> Matrix:
    """Average taxonomic distance of a task to its k nearest others, k = 1 ... n - 1.

    Args:
        matrix: distances [n, n] that say who is near; row i ranks the neighbours of task i.
        taxonomic: distances [n, n] to be averaged.

    Returns:
        float64 [n - 1].

    >>> neighbourhood_curve(np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]]), np.array([[0, 0, 4], [0, 0, 4], [4, 4, 0]]))
    array([1.33333333, 2.66666667])
    """
    count = len(matrix)
    apart = np.array(matrix, dtype=np.float64)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argsort(axis=1, kind="stable")[:, :-1]
    sums = np.take_along_axis(taxonomic, nearest, axis=1).cumsum(axis=1)
    return np.asarray((sums / np.arange(1, count)).mean(axis=0))


def chance(taxonomic: Matrix) -> float:
    """The average of the curve of neighbours drawn by lot, the same for every k."""
    return float(taxonomic[~np.eye(len(taxonomic), dtype=bool)].mean())


def plot_neighbourhoods(curves: Mapping[str, Matrix], by_chance: float, title: str | None = None) -> Figure:
    """Curves [n - 1] of :func:`neighbourhood_curve` against the size of the neighbourhood."""
    ax = new_axes(4.6, 3.6)
    count = len(next(iter(curves.values())))
    for (name, curve), colour in zip(curves.items(), (ACCENT, "#d1853f"), strict=False):
        ax.plot(
            np.arange(1, count + 1), curve, color=colour, lw=1.8, label=name, marker="o" if count < 3 else ""
        )
    ax.axhline(by_chance, color=FAINT, lw=1.2, ls=(0, (4, 3)), label="chance")
    ax.set(xlim=(1 - 0.02 * count, count * 1.02), ylim=(0, None))
    ax.set_xlabel("size k of the neighbourhood", fontsize=10, color=INK)
    ax.set_ylabel("average taxonomic distance", fontsize=10, color=INK)
    ax.tick_params(labelsize=9, color=FAINT, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")
    return settle(ax, title)


def with_taxa(embeddings: Sequence[Embedding], root: Path | None = None) -> list[Embedding]:
    """The embeddings of CUB and iNat tasks by number of task, called ``[CUB] Corvidae (aves)``, with their taxa.

    Args:
        embeddings: of ``cub_inat2018``, ``cub200`` or ``inat2018``; an embedding that does not carry its
            taxon, as those of the reference implementation, is looked up by its name.
        root: folder of ``inat2018/categories.json``, where names of iNat are looked up.

    Raises:
        ValueError: tasks of which no taxon is known.
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
        found.append(with_meta(embedding, task_name=title, taxon=dict(taxon), family=group))
    return [found[i] for i in task_order(embeddings)]


def task_order(embeddings: Sequence[Embedding]) -> list[int]:
    """The embeddings by number of task; as they are where one has none."""
    numbers = [_task_id(e) for e in embeddings]
    known = [number for number in numbers if number is not None]
    return (
        np.argsort(known, kind="stable").tolist() if len(known) == len(numbers) else list(range(len(numbers)))
    )


def find_icons(
    embeddings: Sequence[Embedding], folder: Path | None, root: Path | None
) -> list[NDArray[np.float64] | None] | None:
    """Pictures from ``folder``, or else from a folder ``iconic_taxa`` in the usual places; None without any.

    Raises:
        FileNotFoundError: ``folder`` is given and is not there.
    """
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not there; --icons takes a folder of pictures <taxon>-200px.png."
        )
    usual = [*([root / "iconic_taxa"] if root else []), Path("static/iconic_taxa"), Path("iconic_taxa")]
    found = folder or next((path for path in usual if path.is_dir()), None)
    return load_icons(embeddings, found) if found else None


def load_icons(embeddings: Sequence[Embedding], folder: Path) -> list[NDArray[np.float64] | None]:
    """A picture [H, W, 3] of the taxon of each embedding, on white; inverted for tasks of CUB.

    ``<taxon>-200px.png`` of the class, or else of the phylum, the kingdom, or ``unknown``; None without any.
    """
    icons: list[NDArray[np.float64] | None] = []
    for embedding in embeddings:
        taxon = _taxon(embedding)
        names = [taxon.get(rank, "").lower() for rank in ("class", "phylum", "kingdom")]
        # names come from files: nothing but words may become part of a path
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
    """The number of the task; the reference implementation keeps it with the settings of the dataset."""
    dataset = embedding.meta.get("dataset")
    settings: Any = dataset if isinstance(dataset, dict) else embedding.meta
    number = settings.get("task_id")
    return number if isinstance(number, int) else None
