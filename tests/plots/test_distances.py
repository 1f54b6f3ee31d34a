"""The matrix of distances, and the tree of tasks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from plot_examples import tasks
from scipy.cluster import hierarchy

from t2v_lightning.plots import (
    cluster,
    leaf_order,
    plot_dendrogram,
    plot_distance_matrix,
)


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
        legend = figure.axes[0].get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["within the noise", "largest noise floor"]

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

    def test_bad_floors_and_icons(self) -> None:
        matrix, names, _ = tasks(3)
        with pytest.raises(ValueError, match=r"noise_floor has shape \[2\]; expected one number or \[3\]"):
            plot_distance_matrix(matrix, names, noise_floor=[1, 2])
        with pytest.raises(ValueError, match="icons has 1 items"):
            plot_distance_matrix(matrix, names, icons=[None])


class TestDendrogram:
    def test_joins_lie_at_their_distances(self) -> None:
        matrix, names, _ = tasks(9)
        ax = plot_dendrogram(matrix, names).axes[0]
        lines = next(c for c in ax.collections if isinstance(c, LineCollection))
        joins = sorted(float(np.asarray(segment)[:, 0].max()) for segment in lines.get_segments())
        np.testing.assert_allclose(joins, sorted(cluster(matrix)[:, 2]))
        assert [label.get_text() for label in ax.get_yticklabels()] == [names[i] for i in leaf_order(matrix)]

    def test_a_single_task_has_no_tree(self) -> None:
        with pytest.raises(ValueError, match="clustering needs two tasks or more; got 1"):
            plot_dendrogram([[0.0]], ["a"])
