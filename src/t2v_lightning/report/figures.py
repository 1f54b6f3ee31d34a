"""The figures of a report, as PNG and PDF."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from t2v_lightning.embedding.run_folder import whole_file
from t2v_lightning.embedding.summary import likelihood_of, tested
from t2v_lightning.plots import (
    plot_dendrogram,
    plot_distance_matrix,
    plot_norm_vs_error,
    plot_stage_profile,
    plot_task_map,
)
from t2v_lightning.report.comparison import Comparison

DPI = 150
"""Dots per inch of the PNG files."""

FIGURES = ("distance_matrix", "dendrogram", "task_map", "norm_vs_error", "stage_profile")
"""The names of their files, without suffix."""

_KINDS = ("png", "pdf")

LONGEST_NAME = 60
"""Characters of a name that a figure shows."""


def draw_figures(
    comparison: Comparison, icons: Sequence[Any] | None = None
) -> Iterator[tuple[str, str, Figure]]:
    """The figures that can be drawn of these tasks, each with the name of its file and what it shows."""
    matrix, names = comparison.matrix, [_plain(name) for name in comparison.names]
    families = comparison.families and [_plain(family) for family in comparison.families]
    yield (
        "distance_matrix",
        "Distances, similar tasks side by side",
        plot_distance_matrix(
            matrix,
            names,
            families=families,
            noise_floor=comparison.floors,
            icons=icons,
            label=comparison.label,
        ),
    )
    yield (
        "dendrogram",
        "Tree of tasks, joined at their average distance",
        plot_dendrogram(matrix, names, families=families, label=comparison.label),
    )
    if len(names) > 2:
        yield (
            "task_map",
            "Map of tasks, near where their distances are small",
            plot_task_map(matrix, names, families=families),
        )
    if errors := _test_errors(comparison):
        measure = likelihood_of(comparison.embeddings[min(errors)].meta).test_short
        yield (
            "norm_vs_error",
            "Norm and test error: how hard each task is for the probe",
            plot_norm_vs_error(
                [comparison.embeddings[i].norm for i in errors],
                list(errors.values()),
                [names[i] for i in errors],
                families=families and [families[i] for i in errors],
                label="test error" if measure == "accuracy" else f"1 - {measure} on test images",
            ),
        )
    if all(e.layers for e in comparison.embeddings):
        yield (
            "stage_profile",
            "Fisher information from input to output",
            plot_stage_profile(
                comparison.embeddings, [_plain(name, 30) for name in comparison.names], families=families
            ),
        )


def _test_errors(comparison: Comparison) -> dict[int, float]:
    """What each task, by its number, lacks to a perfect result on images that its fit has not seen, where it is known.

    None are given of fewer than two tasks, or of tasks that are measured differently.
    """
    found = {
        number: (likelihood_of(embedding.meta).test_short, 1 - value)
        for number, embedding in enumerate(comparison.embeddings)
        if isinstance(value := tested(embedding.meta), (int, float))
        and math.isfinite(value)
        and embedding.norm > 0
    }
    if len(found) < 2 or len({measure for measure, _ in found.values()}) > 1:
        return {}
    return {number: error for number, (_, error) in found.items()}


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Writes `name.png` and `name.pdf`."""
    for kind in _KINDS:
        with whole_file(folder / f"{name}.{kind}") as part:
            figure.savefig(part, format=kind, dpi=DPI)
        figure.set_layout_engine("none")  # every part has its place by now, and to find it again takes long


def remove_figure(folder: Path, name: str) -> None:
    """Removes what `save_figure` has written."""
    for kind in _KINDS:
        (folder / f"{name}.{kind}").unlink(missing_ok=True)


def _plain(name: str, longest: int = LONGEST_NAME) -> str:
    """A name on one line, not too long, in which no `$` starts a formula."""
    line = " ".join(name.split())
    return (line if len(line) <= longest else line[: longest - 1] + "…").replace("$", r"\$")
