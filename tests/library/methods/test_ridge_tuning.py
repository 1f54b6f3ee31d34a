"""Settings of the regression, and what it is wrong by, against regressions that are fitted again."""

from itertools import product

import numpy as np
import pytest
from ridge_by_hand import residual_table, residuals_of, table, without_group

from t2v_lightning.library.evidence import Evidence
from t2v_lightning.library.methods.kernel_ridge import Ridge, kernel_ridge, regress
from t2v_lightning.library.methods.ridge_tuning import (
    BANDWIDTHS,
    NOISES,
    SHARES,
    left_out_errors,
    tune_ridge,
)


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


# --- leaving out ------------------------------------------------------------------------------------------------------


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
