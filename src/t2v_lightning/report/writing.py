"""The files of a report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.run_folder import DISTANCES_FILE, REPORT_FILE, SWEEP_LOGS, whole_file
from t2v_lightning.library import Protocol, TaskLibrary
from t2v_lightning.report.comparison import Comparison, compare
from t2v_lightning.report.figures import FIGURES, draw_figures, remove_figure, save_figure
from t2v_lightning.report.library import LIBRARY_FIGURES, library_figures, library_section
from t2v_lightning.report.page import build_page
from t2v_lightning.report.tables import write_csv
from t2v_lightning.report.taxonomy import (
    chance,
    neighbourhood_curve,
    plot_neighbourhoods,
    taxonomic_distances,
)
from t2v_lightning.report.tensorboard import write_tensorboard

TAXONOMY_FIGURE = "taxonomy_curve"
"""The figure of a report on taxa."""

TAXONOMY_FILE = f"{TAXONOMY_FIGURE}.csv"
"""Its numbers."""


def write_report(
    embeddings: Sequence[Embedding],
    folder: str | Path,
    distance: str = "cosine_unit",
    *,
    thumbnails: Sequence[Path | None] | None = None,
    **options: Any,
) -> NDArray[np.float64]:
    """Writes a page, figures, distances and a TensorBoard log into a folder.

    `report.html` needs no other file. `distances.csv` has the distances to the last digit;
    `distance_matrix`, `dendrogram`, `task_map` (of three tasks or more), `norm_vs_error` (where two tasks or more have
    `meta["test"]`) and `stage_profile` are PNG and PDF files; `tensorboard/sweep` holds the figures, a table and the
    projector.

    Args:
        embeddings: at least two, of one method, probe and layout.
        folder: made if needed.
        distance: one of `functional.distances.DISTANCES`.
        thumbnails: for each task the file of a picture for the projector, or None.
        options: `alpha` and `trivial` of `functional.distances.pdist`.

    Returns:
        float64 [n, n], the distances.

    Raises:
        ValueError: fewer than two embeddings, or some that cannot be compared.
    """
    comparison = compare(embeddings, distance, **options)
    write_comparison(comparison, Path(folder), thumbnails=thumbnails)
    return comparison.matrix


def remove_report(folder: Path) -> None:
    """Removes a report with all its files, so that none of them is taken for a part of another report."""
    for name in (REPORT_FILE, DISTANCES_FILE, TAXONOMY_FILE):
        (folder / name).unlink(missing_ok=True)
    for name in (*FIGURES, TAXONOMY_FIGURE, *LIBRARY_FIGURES):
        remove_figure(folder, name)
    shutil.rmtree(folder / SWEEP_LOGS, ignore_errors=True)


def write_comparison(
    comparison: Comparison,
    folder: Path,
    icons: Sequence[Any] | None = None,
    more_figures: Sequence[tuple[str, str, Any]] = (),
    thumbnails: Sequence[Path | None] | None = None,
    sections: str = "",
) -> None:
    """The files of `write_report`.

    Args:
        comparison: what is reported on.
        folder: made if needed.
        icons: n pictures or None for the diagonal of the matrix.
        more_figures: further figures, each with the name of its file and what it shows.
        thumbnails: n files of pictures for the projector, or None where there is none.
        sections: further parts of the page, as HTML.
    """
    remove_report(folder)
    write_csv(comparison.matrix, comparison.names, folder / DISTANCES_FILE)
    pictures, files = {}, {}
    for name, caption, figure in [*draw_figures(comparison, icons), *more_figures]:
        save_figure(figure, folder, name)
        files[name] = folder / f"{name}.png"
        if name != "distance_matrix" or icons is not None:  # else the page's own matrix shows all of it
            pictures[caption] = files[name].read_bytes()
    with whole_file(folder / REPORT_FILE) as part:
        part.write_text(build_page(comparison, pictures, sections), encoding="utf-8")
    write_tensorboard(comparison, folder, files, thumbnails)


def write_with_library(
    comparison: Comparison,
    library: TaskLibrary,
    folder: Path,
    protocol: Protocol | None = None,
    thumbnails: Sequence[Path | None] | None = None,
) -> None:
    """A report with a section on a library: its advice on each task, and what asking it about its own tasks shows.

    Args:
        comparison: of embeddings that can be compared with those of the library.
        library: has results.
        folder: made if needed.
        protocol: whose results count; None where the library has one only.
        thumbnails: as for `write_comparison`.

    Raises:
        ValueError: the library cannot advise on these tasks; then nothing is written.
    """
    section = library_section(library, comparison, protocol)
    figures = library_figures(library, protocol)
    write_comparison(comparison, folder, more_figures=figures, thumbnails=thumbnails, sections=section)


def write_taxonomy(
    comparison: Comparison,
    folder: Path,
    icons: Sequence[Any] | None = None,
    thumbnails: Sequence[Path | None] | None = None,
) -> None:
    """A report on tasks that carry their taxon, with one more figure, `taxonomy_curve` (PNG, PDF, CSV).

    Args:
        comparison: of embeddings with `meta["taxon"]`, as `with_taxa` makes them.
        folder: made if needed.
        icons: n pictures or None for the diagonal of the matrix.
        thumbnails: as for `write_comparison`.
    """
    taxonomic = taxonomic_distances([embedding.meta["taxon"] for embedding in comparison.embeddings])
    curves = {
        name: neighbourhood_curve(matrix, taxonomic)
        for name, matrix in (("embedding", comparison.matrix), ("taxonomy", taxonomic))
    }
    by_chance = chance(taxonomic)
    caption = "Taxonomic distance of the k nearest tasks: 0 same order, 1 class, 2 phylum, 3 kingdom, 4 none"
    figure = plot_neighbourhoods(curves, by_chance)
    write_comparison(comparison, folder, icons, [(TAXONOMY_FIGURE, caption, figure)], thumbnails)
    with whole_file(folder / TAXONOMY_FILE) as part, part.open("w") as file:
        file.write("k,embedding,taxonomy,chance\n")
        for k, values in enumerate(zip(*curves.values(), strict=True), start=1):
            file.write(",".join(map(str, (k, *values, by_chance))) + "\n")
