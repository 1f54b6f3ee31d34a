"""Figures of a table of results and of regrets: what is drawn is what was given."""

from typing import Any

import numpy as np
import pytest

from t2v_lightning.plots.results import plot_regret_by_size, plot_regrets, plot_results


def test_the_heat_map_shows_points_above_the_best_and_marks_it() -> None:
    errors = np.array([[10.0, 12.0, np.nan], [30.0, 25.0, 45.0], [np.nan] * 3])
    figure = plot_results(errors, ["birds", "a name\\$", "empty"], ["a", "b", "c"])
    figure.draw_without_rendering()
    (ax, bar) = figure.axes
    shown: Any = ax.images[0].get_array()
    np.testing.assert_allclose(shown.filled(-1), [[0, 2, -1], [5, 0, 20], [-1, -1, -1]])
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), [[0, 0], [1, 1]])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "c"]
    assert "above the best expert" in bar.get_ylabel()


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="experts has 1 items; expected one for each of 2 columns"):
        plot_results(np.ones((2, 2)), ["a", "b"], ["x"])
    with pytest.raises(ValueError, match="tasks has 1 items"):
        plot_results(np.ones((2, 2)), ["a"], ["x", "y"])
    with pytest.raises(ValueError, match=r"errors has shape \[0, 2\]"):
        plot_results(np.ones((0, 2)), [], ["x", "y"])


def test_regrets_are_drawn_at_their_means() -> None:
    regrets = {"chance": [10.0, 20.0], "static": [4.0, 6.0], "library": [1.0, 2.0]}
    figure = plot_regrets(regrets, {name: np.array(values) * 2 for name, values in regrets.items()})
    means = [float(np.asarray(points.get_offsets())[0, 0]) for points in figure.axes[0].collections]
    assert means == [15, 5, 1.5, 30, 10, 3]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(regrets)


def test_regret_by_size_is_the_mean_over_draws_that_are_known() -> None:
    figure = plot_regret_by_size([4, 8], {"library": np.array([[3.0, 5.0], [1.0, np.nan]])})
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(np.asarray(line.get_ydata(), np.float64), [4.0, 1.0])
