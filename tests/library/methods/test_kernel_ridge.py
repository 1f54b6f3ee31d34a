"""Kernel ridge regression against solutions that are written out."""

from itertools import product

import numpy as np
import pytest

from t2v_lightning.library.additive import additive_fit
from t2v_lightning.library.evidence import Evidence, Matrix
from t2v_lightning.library.methods.kernel_ridge import Ridge, kernel_ridge
from t2v_lightning.library.methods.ridge_tuning import BANDWIDTHS, NOISES, SHARES, tune_ridge


def table(seed: int, tasks: int = 9, experts: int = 5) -> tuple[Evidence, Matrix, Matrix]:
    """Evidence in three families, and two matrices of distances of points in the plane."""
    rng = np.random.default_rng(seed)
    first, second = (
        np.linalg.norm(points[:, None] - points, axis=2) for points in rng.normal(size=(2, tasks, 2))
    )
    trained_on = np.array([0, 4, -1, -1, 7])[:experts]
    errors = rng.uniform(5, 60, size=(tasks, experts))
    return Evidence(errors, np.arange(tasks) // 3, trained_on), first, second


def written_out(evidence: Evidence, distances: Matrix, between: Matrix, ridge: Ridge) -> list[float]:
    """One expert at a time, on the tasks that it has results for."""
    levels, effects = evidence.fit
    predicted = []
    for j, effect in enumerate(effects):
        rows = [t for t in range(len(evidence)) if not np.isnan(evidence.errors[t, j])]
        gram = np.array([[np.exp(-between[a, b] / ridge.bandwidth) for b in rows] for a in rows])
        residuals = np.array([evidence.errors[t, j] - levels[t] - effect for t in rows])
        alpha = np.linalg.inv(gram + ridge.noise * np.eye(len(rows))) @ residuals
        predicted.append(
            effect
            + sum(np.exp(-distances[t] / ridge.bandwidth) * a for t, a in zip(rows, alpha, strict=True))
        )
    return predicted


@pytest.mark.parametrize("holes", [False, True])
def test_predictions_are_those_of_a_regression_for_each_expert(holes: bool) -> None:
    evidence, between, _ = table(0)
    if holes:
        evidence.errors[[0, 2, 2, 5], [1, 1, 3, 0]] = np.nan
    distances = np.linspace(0.2, 2, len(evidence))
    ridge = Ridge(0.8, 0.3)
    found = kernel_ridge(evidence, distances, between, ridge)
    np.testing.assert_allclose(found.effects, written_out(evidence, distances, between, ridge), rtol=1e-10)
    assert found.weights.min() >= 0
    assert found.weights.sum() <= 1


def test_far_from_all_tasks_the_static_list_remains() -> None:
    evidence, between, _ = table(1)
    found = kernel_ridge(evidence, np.full(len(evidence), 200.0), between, Ridge())
    np.testing.assert_allclose(found.effects, evidence.fit[1], atol=1e-10)
    assert found.weights.max() < 1e-10


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
    evidence, first, second = table(2)
    levels, effects = evidence.fit
    residuals = evidence.errors - levels[:, None] - effects
    groups = evidence.families if by_family else np.arange(len(evidence))
    losses = {}
    for share, bandwidth, noise in product(SHARES, BANDWIDTHS, NOISES):
        kernel = np.exp(-((1 - share) * first + share * second) / bandwidth)
        squares = []
        for t in range(len(evidence)):
            rest = np.flatnonzero(groups != groups[t])
            inverse = np.linalg.inv(kernel[np.ix_(rest, rest)] + noise * np.eye(len(rest)))
            wrong = residuals[t] - kernel[t, rest] @ inverse @ residuals[rest]
            theirs = [s >= 0 and groups[s] == groups[t] for s in evidence.trained_on]
            kept = wrong[~np.array(theirs)]
            squares += list((kept - kept.mean()) ** 2)
        losses[bandwidth, noise, share] = np.mean(squares)
    found = tune_ridge(evidence, first, second, by_family)
    assert losses[found.bandwidth, found.noise, found.share] == pytest.approx(min(losses.values()))


def test_one_task_leaves_nothing_to_choose_by() -> None:
    evidence = Evidence(np.array([[10.0, 30.0]]), np.zeros(1, np.int64), np.array([-1, -1]))
    assert tune_ridge(evidence, np.zeros((1, 1)), None) == Ridge()
    effects = kernel_ridge(evidence, np.zeros(1), np.zeros((1, 1)), Ridge()).effects
    np.testing.assert_allclose(effects, [-10, 10])
