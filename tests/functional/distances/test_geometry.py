"""Points from distances: exact where space allows."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from t2v_lightning.functional.distances.geometry import classical_mds


@pytest.mark.parametrize("dimensions", [3, 9, 12])
def test_distances_between_points_are_kept(dimensions: int) -> None:
    points = np.random.default_rng(0).normal(size=(9, 3)) * [3, 2, 1]
    found = classical_mds(squareform(pdist(points)), dimensions)
    assert found.shape == (9, dimensions)
    np.testing.assert_allclose(pdist(found), pdist(points), atol=1e-6)


def test_the_first_coordinates_are_the_principal_ones() -> None:
    points = np.random.default_rng(1).normal(size=(50, 4)) * [1, 8, 4, 2]
    points -= points.mean(0)
    found = classical_mds(squareform(pdist(points)), 2)
    lengths = np.linalg.svd(points, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), lengths[:2])


def test_distances_of_no_space_give_finite_points() -> None:
    found = classical_mds([[0, 1, 1], [1, 0, 10], [1, 10, 0]], 3)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 1:], 0, atol=1e-6)
