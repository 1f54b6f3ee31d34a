"""Tasks as points."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from plot_examples import tasks
from scipy.spatial.distance import pdist, squareform

from t2v_lightning.plots import (
    plot_norm_vs_error,
    plot_task_map,
)


def test_distances_in_the_plane_are_kept() -> None:
    points = np.random.default_rng(0).normal(size=(8, 2))
    figure = plot_task_map(squareform(pdist(points)), [str(i) for i in range(8)])
    marks = next(c for c in figure.axes[0].collections if isinstance(c, PathCollection))
    np.testing.assert_allclose(pdist(np.asarray(marks.get_offsets())), pdist(points), atol=1e-2)
    assert figure.axes[0].get_xlabel() == "MDS, stress 0.00"


def test_two_calls_agree() -> None:
    matrix, names, _ = tasks(20)
    first, second = (
        np.asarray(next(c for c in f.axes[0].collections if isinstance(c, PathCollection)).get_offsets())
        for f in (plot_task_map(matrix, names), plot_task_map(matrix, names))
    )
    np.testing.assert_array_equal(first, second)


def test_umap_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match="pip install umap-learn"):
        plot_task_map(*tasks(5)[:2], method="umap")


def test_other_methods() -> None:
    with pytest.raises(ValueError, match="unknown method 'pca' of a map; allowed are mds and umap"):
        plot_task_map(*tasks(5)[:2], method="pca")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a map needs three tasks or more; got 2"):
        plot_task_map([[0, 1], [1, 0]], ["a", "b"])


def test_norms_are_above_zero() -> None:
    with pytest.raises(ValueError, match="norms must be finite and above 0"):
        plot_norm_vs_error([0.0, 1.0], [0.1, 0.2], ["a", "b"])
