"""How predictions may be wrong: moves of the regression, and residuals for a new task."""

import numpy as np
from ridge_by_hand import table

from t2v_lightning.library.methods.kernel_ridge import Ridge, regress
from t2v_lightning.library.sampling import moves, residuals_like


def test_moves_have_the_spread_of_their_sources() -> None:
    evidence, between, _ = table(5)
    found = regress(evidence, np.arange(9), np.linspace(0.3, 2, 9), between, Ridge(0.9, 0.3))
    stderrs = np.full((9, 5), 2.0)
    changes = 0.05 * np.random.default_rng(0).normal(size=(8, 9))
    drawn = moves(np.random.default_rng(1), 20_000, found, stderrs, changes)
    resampled = ((found.shares * found.misfits) ** 2).sum(0)
    jackknife = 7 / 8 * (((changes * found.slopes) @ found.duals) ** 2).sum(0)
    results = np.append(4 * (found.shares[:, :-1] ** 2).sum(0), 0)
    np.testing.assert_allclose(drawn.var(0), resampled + jackknife + results, rtol=0.06)
    without = moves(np.random.default_rng(1), 20_000, found, np.full((9, 5), np.nan), None)
    np.testing.assert_allclose(without.var(0), resampled, rtol=0.06)


def test_residuals_of_experts_at_home_come_from_experts_at_home() -> None:
    left = np.array([[1.0, 20.0, np.nan], [30.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    at_home = np.array([[False, True, False], [True, False, False], [False, False, False]])
    home = np.array([False, False, True])
    found = np.array([residuals_like(left, at_home, home, np.random.default_rng(n)) for n in range(50)])
    assert set(found[:, 0, 2].tolist()) == {20.0}  # the one at home in the first task
    assert set(found[:, 1, 2].tolist()) == {30.0}
    assert set(found[:, 2, 2].tolist()) == {20.0, 30.0}  # of any task, as nobody is at home in the third
    assert set(found[:, 1, 0].tolist()) == {1.0, 4.0}  # away from home, in place of what it did at home
    assert (found[:, 1, 1] == 2).all()


def test_holes_are_filled_by_residuals_of_the_same_expert_or_else_of_any() -> None:
    left = np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan]])
    nobody = np.zeros(2, bool)
    found = np.array(
        [residuals_like(left, np.zeros((3, 2), bool), nobody, np.random.default_rng(n)) for n in range(50)]
    )
    assert (found[:, [0, 2], 0] == [1, 3]).all()
    assert set(found[:, 1, 0].tolist()) == set(found[:, :, 1].ravel().tolist()) == {1.0, 3.0}
