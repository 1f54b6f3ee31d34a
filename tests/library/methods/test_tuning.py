"""Settings of the kernel average: those of least error, by the slow way round."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from t2v_lightning.library.evidence import Evidence, Query
from t2v_lightning.library.leave_one_out import residuals
from t2v_lightning.library.methods import Kernel, kernel_average, static_list, tuning
from t2v_lightning.library.methods.tuning import BANDWIDTHS, tune

Array = NDArray[np.float64]


def made(seed: int = 0, of: int = 0) -> tuple[Evidence, list[Array]]:
    """Tasks on a plane whose first coordinate (or second) decides the errors; distances along either."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(4, 2)).repeat(3, axis=0) + 0.2 * rng.normal(size=(12, 2))
    errors = (
        40
        + points[:, [of]] * 8 * rng.normal(size=6)
        + rng.normal(size=(12, 6))
        + 5 * rng.normal(size=(12, 1))
    )
    errors[rng.random(errors.shape) < 0.15] = np.nan
    distances = [np.abs(points[:, [c]] - points[:, c]) for c in (0, 1)]
    trained_on = np.array([0, 4, -1, -1, -1, 11])
    return Evidence(errors, np.arange(12) // 3, trained_on), [d / np.median(d) for d in distances]


@pytest.mark.parametrize("by_family", [False, True])
def test_the_settings_are_those_of_least_error(by_family: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shares, bandwidths, priors = (0.0, 0.5, 1.0), (0.08, 0.3), (0.03, 1.0)
    for name, grid in (("SHARES", shares), ("BANDWIDTHS", bandwidths), ("PRIORS", priors)):
        monkeypatch.setattr(tuning, name, grid)
    evidence, (first, second) = made()
    found = tune(evidence, np.arange(12), first, second, by_family)
    errors = evidence.errors.copy()
    for j, t in enumerate(evidence.trained_on):
        if t >= 0:
            errors[t, j] = np.nan
    losses = {}
    for share, bandwidth, prior in itertools.product(shares, bandwidths, priors):
        d = (1 - share) * first + share * second
        near = float(np.median([min(d[t, s] for s in range(12) if s != t) for t in range(12)]))
        wrong = []
        for t in range(12):
            others = [s for s in range(12) if (s // 3 != t // 3 if by_family else s != t)]
            kept = Evidence(errors[others], np.arange(len(others)), np.full(6, -1))
            guess = kernel_average(kept, Query(d[t, others]), Kernel(bandwidth, prior, near)).effects
            usable = [
                j
                for j in range(6)
                if not np.isnan(errors[t, j] + guess[j]) and evidence.trained_on[j] in (-1, *others)
            ]
            truth = errors[t, usable] - errors[t, usable].mean()
            wrong.append(np.mean((truth - guess[usable] + guess[usable].mean()) ** 2))
        losses[share, bandwidth, prior] = np.mean(wrong)
    best = min(losses, key=lambda settings: losses[settings])
    assert (found.share, found.kernel.bandwidth, found.kernel.prior) == best
    assert found.loss == pytest.approx(losses[best])


@pytest.mark.parametrize("of", [0, 1])
def test_the_mixture_prefers_the_distance_that_tells(of: int) -> None:
    evidence, (first, second) = made(of=of)
    found = tune(evidence, np.arange(12), first, second)
    assert found.share >= 0.75 if of else found.share <= 0.25


def test_noise_is_answered_by_a_large_prior() -> None:
    evidence, (first, _) = made()
    errors = 40 + np.random.default_rng(1).normal(size=(12, 6))
    random = tune(Evidence(errors, evidence.families, np.full(6, -1)), np.arange(12), first, None)
    related = tune(evidence, np.arange(12), first, None)
    assert random.kernel.bandwidth == max(BANDWIDTHS) or random.kernel.prior >= 1
    assert related.kernel.prior < 1


@pytest.mark.parametrize("tasks", [1, 2])
def test_few_tasks_have_settings_too(tasks: int) -> None:
    one = Evidence(np.full((tasks, 2), 30.0), np.zeros(tasks, np.int64), np.full(2, -1))
    distances = 1 - np.eye(tasks)
    found = tune(one, np.arange(tasks), distances, None, by_family=True)
    assert (found.kernel.bandwidth, found.kernel.prior) == (0.2, 1.0)
    assert np.isnan(found.loss)


def test_residuals_and_regrets_by_hand() -> None:
    errors = np.array([[10.0, 20.0, 30.0], [12.0, 18.0, 33.0], [40.0, 20.0, 15.0]])
    one = Evidence(errors, np.array([0, 0, 1]), np.full(3, -1))
    found = residuals(static_list, one, lambda row: Query(np.zeros(3)), np.arange(3), by_family=False)
    assert found.rows.tolist() == [0, 1, 2]
    centred = errors - errors.mean(1, keepdims=True)
    for t in range(3):
        guess = np.mean([centred[s] for s in range(3) if s != t], axis=0)
        np.testing.assert_allclose(found.effects[t], centred[t] - guess)
        assert found.regrets[t] == pytest.approx(errors[t, guess.argmin()] - errors[t].min())
    family = residuals(static_list, one, lambda row: Query(np.zeros(3)), np.arange(3), by_family=True)
    np.testing.assert_allclose(family.effects[0], centred[0] - centred[2])
