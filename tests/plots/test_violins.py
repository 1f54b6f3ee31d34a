"""The violins of distances between batches."""

import numpy as np
import pytest

from t2v_lightning.plots import plot_diversity


def test_means_errors_noise_and_bounds_are_where_they_belong() -> None:
    rng = np.random.default_rng(0)
    pairs = {"prose": rng.uniform(0.1, 0.2, 45), "all $ of it": rng.uniform(0.2, 0.3, 45), "one": [0.05]}
    ax = plot_diversity(pairs, errors=[0.01, 0.02, 0.0], noise=[0.12, 0.2, 0.05], bounds=(0.01, 0.4)).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["prose", r"all \$ of it", "one"]
    assert len(ax.collections) == 3  # two violins and the bars
    mean = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(
        np.asarray(mean.get_xdata(), float), [np.mean(found) for found in pairs.values()]
    )
    bars = ax.collections[-1].get_segments()  # type: ignore[attr-defined]
    assert np.ptp(bars[1][:, 0]) == pytest.approx(4 * 0.02)
    assert sorted(line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--") == [0.01, 0.4]  # type: ignore[index]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="errors has 1 items; expected one for each of 2 tasks"):
        plot_diversity({"a": [0.1], "b": [0.2]}, errors=[0.1])
    with pytest.raises(ValueError, match="a dataset without distances"):
        plot_diversity({"a": []})
