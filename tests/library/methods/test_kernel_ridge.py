"""Kernel ridge regression against solutions that are written out."""

from itertools import product

import numpy as np
import pytest

from t2v_lightning.library.additive import additive_fit
from t2v_lightning.library.evidence import Evidence, Matrix, Query
from t2v_lightning.library.methods.kernel_ridge import Ridge, kernel_ridge, regress
from t2v_lightning.library.methods.ridge_tuning import (
    BANDWIDTHS,
    NOISES,
    SHARES,
    left_out_errors,
    tune_ridge,
)
from t2v_lightning.library.methods.static_list import static_list
from t2v_lightning.library.sampling import moves, residuals_like


def table(seed: int, tasks: int = 9, experts: int = 5) -> tuple[Evidence, Matrix, Matrix]:
    """Evidence in three families, and two matrices of distances of points in the plane."""
    rng = np.random.default_rng(seed)
    first, second = (
        np.linalg.norm(points[:, None] - points, axis=2) for points in rng.normal(size=(2, tasks, 2))
    )
    trained_on = np.array([0, 4, -1, -1, 7])[:experts]
    errors = rng.uniform(5, 60, size=(tasks, experts))
    return Evidence(errors, np.arange(tasks) // 3, trained_on), first, second


def residuals_of(evidence: Evidence, j: int, at_home: bool) -> tuple[list[float], float]:
    """Of one expert on all tasks, NaN where they do not count, and its mean beside the levels of the tasks.

    Results in the family that it was trained in count if the new task is of that family. The mean is without those on
    the task that it was trained on.
    """
    own, (levels, effects) = evidence.trained_on[j], evidence.fit
    left = evidence.errors[:, j] - levels
    if at_home or own < 0:
        return (left - effects[j]).tolist(), float(effects[j])
    left[evidence.families == evidence.families[own]] = np.nan
    mean = float(np.nanmean(left))
    return (left - mean).tolist(), mean


def residual_table(evidence: Evidence, family: int | None) -> Matrix:
    """For a task of that family, with deviations of the levels in the last column."""
    columns = []
    for j, own in enumerate(evidence.trained_on):
        at_home = own >= 0 and evidence.families[own] == family
        columns.append(residuals_of(evidence, j, at_home)[0])
    return np.column_stack([*columns, evidence.fit[0] - evidence.fit[0].mean()])


def written_out(
    evidence: Evidence, distances: Matrix, between: Matrix, ridge: Ridge, family: int | None
) -> list[float]:
    """One expert at a time, on the tasks that it has results for."""
    predicted = []
    for j, own in enumerate(evidence.trained_on):
        left, effect = residuals_of(evidence, j, own >= 0 and evidence.families[own] == family)
        rows = [t for t in range(len(evidence)) if not np.isnan(left[t])]
        gram = np.array([[np.exp(-between[a, b] / ridge.bandwidth) for b in rows] for a in rows])
        residuals = np.array([left[t] for t in rows])
        alpha = np.linalg.inv(gram + ridge.noise * np.eye(len(rows))) @ residuals
        predicted.append(
            effect
            + sum(np.exp(-distances[t] / ridge.bandwidth) * a for t, a in zip(rows, alpha, strict=True))
        )
    return predicted


def without_group(evidence: Evidence, values: Matrix, gone: Matrix) -> Matrix:
    """Residuals, and levels in the last column, beside a static list that some tasks have no part in."""
    out = values.copy()
    for j in range(values.shape[1]):
        own = evidence.trained_on[j] if j < len(evidence.trained_on) else -1
        rows = [t for t in range(len(values)) if not np.isnan(values[t, j]) and t != own]
        theirs = [t for t in rows if gone[t]]
        out[:, j] += sum(values[t, j] for t in theirs) / (len(rows) - len(theirs))
    return out


@pytest.mark.parametrize("family", [None, 0, 1])
@pytest.mark.parametrize("holes", [False, True])
def test_predictions_are_those_of_a_regression_for_each_expert(holes: bool, family: int | None) -> None:
    evidence, between, _ = table(0)
    if holes:
        evidence.errors[[0, 2, 2, 5], [1, 1, 3, 0]] = np.nan
    distances = np.linspace(0.2, 2, len(evidence))
    ridge = Ridge(0.8, 0.3)
    found = kernel_ridge(evidence, distances, between, ridge, family)
    expected = written_out(evidence, distances, between, ridge, family)
    np.testing.assert_allclose(found.effects, expected, rtol=1e-10)
    assert found.weights.min() >= 0
    assert found.weights.sum() <= 1 + 1e-12


def test_far_from_all_tasks_the_static_list_remains() -> None:
    evidence, between, _ = table(1)
    found = kernel_ridge(evidence, np.full(len(evidence), 200.0), between, Ridge())
    np.testing.assert_allclose(
        found.effects, [residuals_of(evidence, j, at_home=False)[1] for j in range(5)], atol=1e-10
    )
    assert found.weights.max() < 1e-10


def test_results_in_the_family_of_an_expert_count_for_tasks_of_that_family_alone() -> None:
    """One that is good at home and bad elsewhere is advised at home only, also by the static list."""
    errors = np.column_stack([[10.0, 10, 35, 35], *[[30.0] * 4] * 10])
    evidence = Evidence(errors, np.array([0, 0, 1, 2]), np.array([0, *[-1] * 10]))
    between = 1.0 - np.eye(4)
    assert evidence.fit[1][0] < 0 < evidence.away[0]  # 10, 35 and 35 % are better on average than 30 %
    away = kernel_ridge(evidence, np.array([0.1, 0.1, 9.0, 9.0]), between, Ridge()).effects
    home = kernel_ridge(evidence, np.array([0.1, 0.1, 9.0, 9.0]), between, Ridge(), 0).effects
    assert home.argmin() == 0
    assert away.argmax() == 0
    assert static_list(evidence, Query(np.ones(4))).effects.argmax() == 0


def test_the_family_that_an_expert_was_trained_in_is_known_without_its_task() -> None:
    evidence, _, _ = table(1)
    part = evidence.only(np.arange(9) != 4)  # the second expert's task; its family has two more
    assert part.trained_on[1] == -1
    np.testing.assert_array_equal(part.at_home[:, 1], evidence.at_home[np.arange(9) != 4, 1])
    assert part.at_home[:, 1].sum() == 2


def test_experts_of_two_families_that_share_no_task_away_from_home_are_compared() -> None:
    """Each is at home in one of the families, so that away from home no task has results of both."""
    errors = np.tile([10.0, 11.0, 45.0, 55.0], (6, 1))
    families = np.array([0, 0, 0, 1, 1, 1])
    evidence = Evidence(errors, families, np.array([0, 1, 3, 4]))
    effects = kernel_ridge(evidence, np.full(6, 200.0), 1.0 - np.eye(6), Ridge()).effects
    assert effects.argsort().tolist() == [0, 1, 2, 3]


def test_an_expert_that_has_no_results_elsewhere_keeps_those_of_its_family() -> None:
    """As in a library of one family."""
    evidence, between, _ = table(1)
    evidence = Evidence(evidence.errors, np.zeros(9, np.int64), evidence.trained_on)
    assert not evidence.at_home.any()
    np.testing.assert_allclose(evidence.away, evidence.fit[1])
    effects = [kernel_ridge(evidence, np.ones(9), between, Ridge(), family).effects for family in (None, 0)]
    np.testing.assert_allclose(*effects)


def test_two_tasks_that_are_one_share_their_vote() -> None:
    """Many labellings of one set of images do not outvote the others, as they do in an average."""
    errors = np.array([[10.0, 30.0], [40.0, 20.0]])
    doubled = np.concatenate([errors[:1]] * 5 + [errors[1:]])
    place = np.array([0.0] * 5 + [2.0])
    evidence = Evidence(doubled, np.arange(6), np.array([-1, -1]))
    between = np.abs(place[:, None] - place)
    effects = kernel_ridge(evidence, np.full(6, 1.0), between, Ridge(1.0, 1e-3)).effects
    residual = additive_fit(doubled)
    expected = [  # both places pull alike, though one has five tasks
        residual[1][j]
        + np.exp(-1)
        / (1 + np.exp(-2))
        * sum(errors[t, j] - errors[t].mean() - residual[1][j] for t in (0, 1))
        for j in (0, 1)
    ]
    np.testing.assert_allclose(effects, expected, rtol=5e-3)


@pytest.mark.parametrize("by_family", [False, True])
def test_the_settings_are_those_of_the_least_error_when_each_is_fitted_again(by_family: bool) -> None:
    evidence, first, second = table(11)
    columns = [residuals_of(evidence, j, at_home=not by_family)[0] for j in range(5)]
    residuals = np.column_stack(columns)
    groups = evidence.families if by_family else np.arange(len(evidence))
    losses, of_experts = {}, {}
    for share, bandwidth, noise in product(SHARES, BANDWIDTHS, NOISES):
        kernel = np.exp(-((1 - share) * first + share * second) / bandwidth)
        squares = np.zeros(residuals.shape)
        for t in range(len(evidence)):
            rest = np.flatnonzero(groups != groups[t])
            inverse = np.linalg.inv(kernel[np.ix_(rest, rest)] + noise * np.eye(len(rest)))
            seen = without_group(evidence, residuals, groups == groups[t])
            wrong = seen[t] - kernel[t, rest] @ inverse @ np.nan_to_num(seen[rest])
            theirs = [s >= 0 and groups[s] == groups[t] for s in evidence.trained_on]
            kept = ~np.array(theirs) & ~np.isnan(residuals[t])
            squares[t, kept] = (wrong[kept] - wrong[kept].mean()) ** 2
        losses[bandwidth, noise, share] = squares.sum()
        of_experts[bandwidth, noise, share] = squares.sum(0)
    found = tune_ridge(evidence, first, second, by_family)
    assert isinstance(found.noise, np.ndarray)
    level = float(found.noise[-1])
    assert losses[found.bandwidth, level, found.share] == pytest.approx(min(losses.values()))
    assert len(set(found.noise.tolist())) > 1
    own = np.array([of_experts[found.bandwidth, noise, found.share] for noise in NOISES])
    deciding = 0.9 * own.mean(1, keepdims=True) + 0.1 * own
    np.testing.assert_array_equal(found.noise[:-1], np.array(NOISES)[deciding.argmin(0)])


def test_one_task_leaves_nothing_to_choose_by() -> None:
    evidence = Evidence(np.array([[10.0, 30.0]]), np.zeros(1, np.int64), np.array([-1, -1]))
    assert tune_ridge(evidence, np.zeros((1, 1)), None).noise == Ridge().noise
    effects = kernel_ridge(evidence, np.zeros(1), np.zeros((1, 1)), Ridge()).effects
    np.testing.assert_allclose(effects, [-10, 10])


# --- leaving out, and how predictions move --------------------------------------------------------------------------


@pytest.mark.parametrize("by_family", [False, True])
def test_errors_of_what_is_left_out_are_those_of_fitting_the_rest(by_family: bool) -> None:
    """For the experts and for the level; an expert of a task that is left out does not count."""
    evidence, between, _ = table(3)
    evidence.errors[[1, 4], [2, 3]] = np.nan
    ridge = Ridge(0.7, 0.4)
    found = left_out_errors(evidence, between, ridge, by_family)
    groups = evidence.families if by_family else np.arange(len(evidence))
    kernel = np.exp(-between / ridge.bandwidth)
    for t in range(len(evidence)):
        values = residual_table(evidence, None if by_family else int(evidence.families[t]))
        rest = np.flatnonzero(groups != groups[t])
        gram = kernel[np.ix_(rest, rest)] + ridge.noise * np.eye(len(rest))
        seen = without_group(evidence, values, groups == groups[t])
        wrong = seen[t] - kernel[t, rest] @ np.linalg.inv(gram) @ np.nan_to_num(seen[rest])
        theirs = [s >= 0 and groups[s] == groups[t] for s in evidence.trained_on]
        wrong[[*theirs, False]] = np.nan
        np.testing.assert_allclose(found[t], wrong, atol=1e-9)


@pytest.mark.parametrize("by_family", [False, True])
def test_what_is_left_out_has_no_part_in_the_static_list(by_family: bool) -> None:
    """As if the library had never had the task: levels, effects and regression are all made again."""
    evidence, between, _ = table(6)
    evidence = Evidence(evidence.errors, evidence.families, np.full(5, -1))
    ridge = Ridge(0.7, 0.4)
    found = left_out_errors(evidence, between, ridge, by_family)
    groups = evidence.families if by_family else np.arange(len(evidence))
    for t, errors in enumerate(evidence.errors):
        kept = groups != groups[t]
        part = evidence.only(kept)
        rest = between[np.ix_(kept, kept)]
        again = regress(part, np.arange(len(part)), between[t, kept], rest, ridge)
        np.testing.assert_allclose(found[t, :-1], errors - errors.mean() - again.effects, atol=1e-9)
        assert found[t, -1] == pytest.approx(errors.mean() - again.level, abs=1e-9)


def test_each_expert_may_have_a_noise_of_its_own() -> None:
    evidence, between, _ = table(5)
    evidence.errors[[2, 5], [1, 4]] = np.nan
    noises = np.resize([0.1, 0.5, 0.1, 2.0], evidence.errors.shape[1] + 1)
    near, distances = np.arange(len(evidence)), np.linspace(0.3, 2, len(evidence))
    found = regress(evidence, near, distances, between, Ridge(0.7, noises))
    wrong = left_out_errors(evidence, between, Ridge(0.7, noises))
    for noise in np.unique(noises).tolist():
        of, one = noises == noise, Ridge(0.7, noise)
        alone = regress(evidence, near, distances, between, one)
        np.testing.assert_allclose(found.effects[of[:-1]], alone.effects[of[:-1]])
        np.testing.assert_allclose(found.misfits[:, of], alone.misfits[:, of])
        np.testing.assert_allclose(wrong[:, of], left_out_errors(evidence, between, one)[:, of])


def test_one_result_says_nothing_of_how_well_an_expert_is_predicted() -> None:
    evidence, between, _ = table(7)
    evidence.errors[1:, 2] = np.nan
    assert np.isnan(left_out_errors(evidence, between, Ridge())[:, 2]).all()


def test_shares_duals_and_misfits_are_derivatives() -> None:
    """Of predictions by results, by kernel values, and by the weights of tasks: λ / w in place of λ."""
    evidence, between, _ = table(4)
    evidence.errors[[2, 5], [1, 4]] = np.nan
    ridge, distances, near = Ridge(0.9, 0.3), np.linspace(0.3, 2, 9), np.arange(9)
    found = regress(evidence, near, distances, between, ridge)
    values = residual_table(evidence, None)
    kernel = np.exp(-between / ridge.bandwidth)

    def predicted(column: int, y: Matrix, to_task: Matrix, weights: Matrix) -> float:
        there = ~np.isnan(values[:, column])
        gram = kernel[np.ix_(there, there)] + np.diag(ridge.noise / weights[there])
        return float(to_task[there] @ np.linalg.inv(gram) @ y[there])

    to_task, one, step = np.exp(-distances / ridge.bandwidth), np.ones(9), 1e-6
    np.testing.assert_allclose(found.slopes, -to_task / ridge.bandwidth)
    for column in range(values.shape[1]):
        y = np.nan_to_num(values[:, column])
        start = predicted(column, y, to_task, one)
        moved = (
            found.effects[column] - residuals_of(evidence, column, at_home=False)[1]
            if column < 5
            else found.level - evidence.fit[0].mean()
        )
        assert start == pytest.approx(moved)
        for t in near:
            up = step * (near == t)
            slope = (predicted(column, y + up, to_task, one) - start) / step
            assert found.shares[t, column] == pytest.approx(slope, abs=1e-5)
            slope = (predicted(column, y, to_task + up, one) - start) / step
            assert found.duals[t, column] == pytest.approx(slope, abs=1e-4)
            slope = (predicted(column, y, to_task, one + up) - start) / step
            assert found.shares[t, column] * found.misfits[t, column] == pytest.approx(slope, abs=1e-4)


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


# --- residuals for a new task ----------------------------------------------------------------------------------------


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
