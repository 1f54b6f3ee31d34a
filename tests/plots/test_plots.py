"""Figures: what is on them, that nothing falls off them, and that bad input is told early."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform

from t2v_lightning.embedding import Embedding
from t2v_lightning.plots import (
    cluster,
    leaf_order,
    plot_dendrogram,
    plot_distance_matrix,
    plot_norm_vs_error,
    plot_stage_profile,
    plot_task_map,
)
from t2v_lightning.plots.profiles import stage_labels
from t2v_lightning.probes import get_probe

Plot = Callable[..., Figure]


def tasks(count: int, families: int = 3) -> tuple[np.ndarray, list[str], list[str]]:
    """Distances of tasks that lie around the centres of their families."""
    generator = np.random.default_rng(count)
    family = np.sort(np.arange(count) % families)[generator.permutation(count)]
    points = generator.normal(0, 10, (families, 4))[family] + generator.normal(0, 1, (count, 4))
    names = [f"task {chr(97 + f)} number {i}" for i, f in enumerate(family)]
    return squareform(pdist(points)), names, [f"family {chr(97 + f)}" for f in family]


def norm_vs_error(matrix: np.ndarray, names: list[str], **options: Any) -> Figure:
    generator = np.random.default_rng(0)
    norms = np.exp(generator.normal(size=len(matrix)))
    return plot_norm_vs_error(norms, generator.random(len(matrix)), names, **options)


PLOTS = [plot_distance_matrix, plot_dendrogram, plot_task_map, norm_vs_error]


class TestClustering:
    def test_families_come_together(self) -> None:
        matrix, _, families = tasks(30)
        ordered = [families[i] for i in leaf_order(matrix)]
        assert sum(a != b for a, b in pairwise(ordered)) == 2

    def test_neighbours_are_as_alike_as_the_tree_allows(self) -> None:
        """No flip of a branch brings neighbours closer: against every order of a small tree."""
        matrix, _, _ = tasks(7)
        tree = hierarchy.to_tree(cluster(matrix))

        def orders(node: Any) -> list[list[int]]:
            if node.is_leaf():
                return [[node.id]]
            pairs = [(a, b) for a in orders(node.left) for b in orders(node.right)]
            return [a + b for a, b in pairs] + [b + a for a, b in pairs]

        def length(order: list[int]) -> float:
            return float(sum(matrix[i, j] for i, j in pairwise(order)))

        assert length(leaf_order(matrix)) == pytest.approx(min(map(length, orders(tree))))

    def test_both_directions_count_and_below_zero_is_zero(self) -> None:
        matrix = np.array([[0.0, 4.0, -3.0], [2.0, 0.0, 5.0], [-1.0, 5.0, 0.0]])
        assert cluster(matrix)[:, 2].tolist() == [0.0, 4.0]


class TestDistanceMatrix:
    def test_cells_follow_the_names(self) -> None:
        matrix, names, _ = tasks(9)
        ax = plot_distance_matrix(matrix, names).axes[0]
        shown = [label.get_text() for label in ax.get_yticklabels()]
        assert shown == [label.get_text() for label in ax.get_xticklabels()]
        assert sorted(shown) == sorted(names)
        drawn: np.ndarray = np.ma.filled(np.ma.asarray(ax.images[0].get_array()), np.nan)
        order = [names.index(name) for name in shown]
        expected = matrix[np.ix_(order, order)]
        np.fill_diagonal(expected, np.nan)
        np.testing.assert_array_equal(drawn, expected)

    def test_the_callers_matrix_is_untouched(self) -> None:
        matrix, names, _ = tasks(5)
        before = matrix.copy()
        plot_distance_matrix(matrix, names)
        np.testing.assert_array_equal(matrix, before)

    def test_the_order_given(self) -> None:
        matrix, names, _ = tasks(9)
        ax = plot_distance_matrix(matrix, names, clustered=False).axes[0]
        assert [label.get_text() for label in ax.get_yticklabels()] == names

    def test_colours_span_what_is_off_the_diagonal(self) -> None:
        matrix, names, _ = tasks(9)
        off = matrix[~np.eye(9, dtype=bool)]
        assert plot_distance_matrix(matrix, names).axes[0].images[0].get_clim() == (off.min(), off.max())

    def test_numbers_up_to_twelve_tasks(self) -> None:
        assert len(plot_distance_matrix(*tasks(12)[:2]).axes[0].texts) == 12 * 11
        assert len(plot_distance_matrix(*tasks(13)[:2]).axes[0].texts) == 0
        small = plot_distance_matrix([[0, 0.1234], [0.1, 0]], ["a", "b"], clustered=False)
        assert [text.get_text() for text in small.axes[0].texts] == ["0.123", "0.100"]

    def test_pairs_below_the_noise_are_marked(self) -> None:
        matrix = np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 6.0], [5.0, 6.0, 0.0]])
        figure = plot_distance_matrix(matrix, ["a", "b", "c"], noise_floor=[0.5, 1.0, 4.0], clustered=False)
        marks = next(c for c in figure.axes[0].collections if isinstance(c, PathCollection))
        assert np.asarray(marks.get_offsets()).round().tolist() == [[1, 0], [0, 1]]
        figure = plot_distance_matrix(matrix, ["a", "b", "c"], noise_floor=5.0, clustered=False)
        marks = next(c for c in figure.axes[0].collections if isinstance(c, PathCollection))
        assert len(np.asarray(marks.get_offsets())) == 4

    def test_pictures_lie_on_the_diagonal(self) -> None:
        matrix, names, _ = tasks(4)
        icons = [np.zeros((5, 8, 3)), None, np.zeros((5, 8)), None]
        ax = plot_distance_matrix(matrix, names, icons=icons).axes[0]
        shown = [label.get_text() for label in ax.get_yticklabels()]
        expected = sorted(shown.index(names[i]) for i in (0, 2))
        assert sorted(image.get_extent()[0] + 0.5 for image in ax.images[1:]) == expected
        assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 3.5), (3.5, -0.5))

    def test_an_equal_matrix_and_a_single_task(self) -> None:
        plot_distance_matrix(np.ones((3, 3)), ["a", "b", "c"])
        plot_distance_matrix([[0.0]], ["a"])

    def test_families_band_the_edges_and_name_themselves(self) -> None:
        matrix, names, families = tasks(9)
        ax = plot_distance_matrix(matrix, names, families=families).axes[0]
        legend = ax.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == sorted(set(families))
        assert len(ax.patches) == 18


class TestDendrogram:
    def test_joins_lie_at_their_distances(self) -> None:
        matrix, names, _ = tasks(9)
        ax = plot_dendrogram(matrix, names).axes[0]
        lines = next(c for c in ax.collections if isinstance(c, LineCollection))
        joins = sorted(float(np.asarray(segment)[:, 0].max()) for segment in lines.get_segments())
        np.testing.assert_allclose(joins, sorted(cluster(matrix)[:, 2]))
        assert [label.get_text() for label in ax.get_yticklabels()] == [names[i] for i in leaf_order(matrix)]


class TestTaskMap:
    def test_distances_in_the_plane_are_kept(self) -> None:
        points = np.random.default_rng(0).normal(size=(8, 2))
        figure = plot_task_map(squareform(pdist(points)), [str(i) for i in range(8)])
        marks = next(c for c in figure.axes[0].collections if isinstance(c, PathCollection))
        np.testing.assert_allclose(pdist(np.asarray(marks.get_offsets())), pdist(points), atol=1e-2)
        assert figure.axes[0].get_xlabel() == "MDS, stress 0.00"

    def test_two_calls_agree(self) -> None:
        matrix, names, _ = tasks(20)
        first, second = (
            np.asarray(next(c for c in f.axes[0].collections if isinstance(c, PathCollection)).get_offsets())
            for f in (plot_task_map(matrix, names), plot_task_map(matrix, names))
        )
        np.testing.assert_array_equal(first, second)

    def test_umap_says_what_it_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "umap", None)
        with pytest.raises(ImportError, match="pip install umap-learn"):
            plot_task_map(*tasks(5)[:2], method="umap")

    def test_other_methods(self) -> None:
        with pytest.raises(ValueError, match="unknown method 'pca' of a map; choose mds or umap"):
            plot_task_map(*tasks(5)[:2], method="pca")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a map needs three tasks or more; got 2"):
            plot_task_map([[0, 1], [1, 0]], ["a", "b"])


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


def test_bad_floors_icons_norms() -> None:
    matrix, names, _ = tasks(3)
    with pytest.raises(ValueError, match=r"noise_floor has shape \[2\]; expected one number or \[3\]"):
        plot_distance_matrix(matrix, names, noise_floor=[1, 2])
    with pytest.raises(ValueError, match="icons has 1 items"):
        plot_distance_matrix(matrix, names, icons=[None])
    with pytest.raises(ValueError, match="clustering needs two tasks or more; got 1"):
        plot_dendrogram([[0.0]], ["a"])
    with pytest.raises(ValueError, match="norms must be finite and above 0"):
        plot_norm_vs_error([0.0, 1.0], [0.1, 0.2], ["a", "b"])


class TestStageProfile:
    layers = {  # noqa: RUF012
        "backbone.conv1": slice(0, 2),
        "backbone.layer1.0.conv": slice(2, 4),
        "backbone.layer1.1.conv": slice(4, 6),
        "backbone.layer2.0.conv": slice(6, 9),
    }

    def embedding(self, **options: Any) -> Embedding:
        return Embedding(np.arange(1, 10), np.ones(9), layers=self.layers, **options)

    def test_means_of_layers_by_stage(self) -> None:
        ax = plot_stage_profile([self.embedding(meta={"task_name": "digits"})]).axes[0]
        assert np.asarray(ax.lines[0].get_ydata()).tolist() == [1.5, 3.5, 5.5, 8.0]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["conv1", "layer1", "layer2"]
        assert ax.get_xticks().tolist() == [0, 1.5, 3]
        assert ax.get_legend() is None
        assert ax.get_title(loc="left") == "digits"

    def test_a_few_have_a_legend(self) -> None:
        ax = plot_stage_profile([self.embedding(), self.embedding()], ["digits", "dogs"]).axes[0]
        legend = ax.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["digits", "dogs"]

    def test_given_stages(self) -> None:
        stages = ("conv1", "bn1", "layer1.0", "layer1.1", "layer2")
        ax = plot_stage_profile([self.embedding()], stages=stages).axes[0]
        assert [label.get_text() for label in ax.get_xticklabels()] == [s for s in stages if s != "bn1"]

    def test_stages_are_those_of_the_probe(self) -> None:
        """Most of the layers of the built-in probe are in blocks, which alone would say nothing."""
        probe = get_probe("efficientnet_lite0", weights=None)
        layers = [name.rpartition(".")[0] for name in probe.stage_parameters(0)]
        assert stage_labels(layers) == stage_labels(layers, probe.stages)
        assert {"conv_stem", "blocks.0", "blocks.15", "conv_head"} <= set(stage_labels(layers))
        convolutions = [name for name in layers if "conv" in name]
        assert stage_labels(convolutions) == stage_labels(convolutions, probe.stages)

    def test_variational_layers_have_the_median(self) -> None:
        """A filter with almost no weights bears almost no noise: its precision says nothing of the others'."""
        fisher = np.array([1, 3, 2, 2, 5, 5, 7, 8, 1e8])
        embedding = Embedding(fisher, np.ones(9), layers=self.layers, meta={"method": "variational"})
        ax = plot_stage_profile([embedding]).axes[0]
        assert np.asarray(ax.lines[0].get_ydata()).tolist() == [2, 2, 5, 8]
        assert ax.get_ylabel() == "median precision of a filter's noise"
        assert plot_stage_profile([self.embedding()]).axes[0].get_ylabel() == "mean Fisher of a filter"

    def test_bands_of_two_standard_errors(self) -> None:
        ax = plot_stage_profile([self.embedding(stderr=np.full(9, 0.25))]).axes[0]
        path = ax.collections[0].get_paths()[0].vertices
        assert {1.0, 2.0} <= set(np.asarray(path)[:, 1].tolist())

    def test_what_cannot_be_drawn(self) -> None:
        with pytest.raises(ValueError, match="know their layers"):
            plot_stage_profile([Embedding([1.0], [1.0])])
        with pytest.raises(ValueError, match="know their layers"):
            plot_stage_profile([])
        other = Embedding(np.ones(9), np.ones(9), layers={"a": slice(0, 9)})
        with pytest.raises(ValueError, match="embeddings of one layout"):
            plot_stage_profile([self.embedding(), other])
        with pytest.raises(ValueError, match="names has 2 items"):
            plot_stage_profile([self.embedding()], ["a", "b"])

    def test_many_are_told_apart_by_family(self) -> None:
        embeddings = [self.embedding() for _ in range(20)]
        figure = plot_stage_profile(embeddings, families=["birds", "digits"] * 10, title="Profiles")
        legend = figure.axes[0].get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["birds", "digits"]
        assert len(figure.axes[0].lines) == 22
        alone = plot_stage_profile(embeddings).axes[0].get_legend()
        assert alone is not None
        assert [text.get_text() for text in alone.get_texts()] == ["median of 20 tasks"]
        with pytest.raises(ValueError, match="families has 1 items"):
            plot_stage_profile(embeddings, families=["birds"])

    @pytest.mark.parametrize("count", [1, 5, 50])
    def test_the_axis_keeps_most_of_the_figure(self, count: int) -> None:
        embeddings = [self.embedding(meta={"task_name": f"a task of some length, {i}"}) for i in range(count)]
        figure = plot_stage_profile(embeddings, title="Profiles")
        figure.draw_without_rendering()
        box = figure.axes[0].get_position()
        assert box.height > 0.6
        assert box.width > 0.4
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert 0 <= drawn.x0 <= drawn.x1 <= width
        assert 0 <= drawn.y0 <= drawn.y1 <= height
