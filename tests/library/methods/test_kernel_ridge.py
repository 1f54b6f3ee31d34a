"""Kernel ridge regression against solutions that are written out."""

import numpy as np
import pytest
from ridge_by_hand import residual_table, residuals_of, table

from t2v_lightning.library.additive import additive_fit
from t2v_lightning.library.evidence import Evidence, Matrix, Query
from t2v_lightning.library.methods.kernel_ridge import Ridge, kernel_ridge, regress
from t2v_lightning.library.methods.static_list import static_list


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
