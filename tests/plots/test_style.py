"""What all figures have in common: nothing is cut off, and bad input is an early error."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from plot_examples import tasks

from t2v_lightning.embedding import Embedding
from t2v_lightning.plots import (
    plot_dendrogram,
    plot_distance_matrix,
    plot_norm_vs_error,
    plot_stage_profile,
    plot_task_map,
)

Plot = Callable[..., Figure]


def norm_vs_error(matrix: np.ndarray, names: list[str], **options: Any) -> Figure:
    generator = np.random.default_rng(0)
    norms = np.exp(generator.normal(size=len(matrix)))
    return plot_norm_vs_error(norms, generator.random(len(matrix)), names, **options)


def profile(matrix: np.ndarray, names: list[str], **options: Any) -> Figure:
    layers = {"a$": slice(0, 2), "b$": slice(2, 4)}
    embeddings = [Embedding(row[:4] + 1, np.ones(4), layers=layers) for row in matrix]
    return plot_stage_profile(embeddings, names, **options)


PLOTS = [plot_distance_matrix, plot_dendrogram, plot_task_map, norm_vs_error]


@pytest.mark.parametrize("plot", [*PLOTS, profile])
def test_names_are_text_and_no_formulas(plot: Plot) -> None:
    matrix, names, families = tasks(5)
    dear, other = r"$\frac$", "$5 or $6"
    figure = plot(matrix, [dear, *names[1:]], families=[other, *families[1:]])
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    assert r"\$\frac\$" in texts
    figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("count", [5, 50])
def test_labels_are_readable_and_apart(plot: Plot, count: int) -> None:
    """No label is smaller than six points, none leaves the figure, and names do not hide each other."""
    matrix, names, families = tasks(count)
    figure = plot(matrix, names, families=families, title="Tasks")
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= height
    labels = [
        t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_text() in names and t.get_visible()
    ]
    assert len(labels) >= count
    assert min(float(label.get_fontsize()) for label in labels) >= 6
    boxes = np.array([Text.get_window_extent(label).extents for label in labels])
    shared = np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(boxes[:, None, :2], boxes[:, :2])
    hidden = shared.clip(0).prod(-1) / (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    assert hidden[~np.eye(len(labels), dtype=bool)].max() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("plot", PLOTS)
def test_232_tasks(plot: Plot) -> None:
    test_labels_are_readable_and_apart(plot, 232)


@pytest.mark.parametrize("plot", PLOTS)
def test_a_given_axis_is_drawn_on(plot: Plot) -> None:
    figure = Figure(figsize=(10, 5))
    left, right = figure.subplots(1, 2)
    matrix, names, families = tasks(8)
    assert plot(matrix, names, families=families, ax=right) is figure
    assert not left.has_data()
    assert right.has_data()


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_is_left_in_pyplot(plot: Plot) -> None:
    figure = plot(*tasks(6)[:2])
    for kind in ("png", "pdf", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind)
        assert len(buffer.getvalue()) > 1000
    assert not matplotlib.pyplot.get_fignums()


@pytest.mark.parametrize("plot", PLOTS)
def test_unequal_lengths(plot: Plot) -> None:
    matrix, names, families = tasks(5)
    with pytest.raises(ValueError, match="names has 4 items; expected one for each of 5 tasks"):
        plot(matrix, names[:4])
    with pytest.raises(ValueError, match="families has 6 items; expected one for each of 5 tasks"):
        plot(matrix, names, families=[*families, "x"])


@pytest.mark.parametrize("plot", PLOTS[:3])
def test_bad_matrices(plot: Plot) -> None:
    with pytest.raises(ValueError, match=r"matrix has shape \[2, 3\]; expected distances \[n, n\]"):
        plot(np.ones((2, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="matrix has 1 entries that are not finite"):
        plot([[0, np.nan, 1], [1, 0, 1], [1, 1, 0]], ["a", "b", "c"])
