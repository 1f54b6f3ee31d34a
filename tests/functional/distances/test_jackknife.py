"""The jackknife against its textbook form and against statistics whose variance is known."""

from __future__ import annotations

import numpy as np
import pytest

from t2v_lightning.functional.distances.jackknife import (
    halves,
    jackknife_bias,
    jackknife_variance,
    leave_one_out,
)


def test_leaving_out_is_recomputing_the_mean() -> None:
    generator = np.random.default_rng(0)
    sums, weights = generator.random((5, 3)), generator.random(5)
    means, ratios = leave_one_out(sums, weights)
    for g in range(5):
        rest = [k for k in range(5) if k != g]
        np.testing.assert_allclose(means[g], sums[rest].sum(0) / weights[rest].sum(), rtol=1e-12)
    np.testing.assert_allclose(ratios, weights.sum() / weights)


def test_empty_groups_do_not_count() -> None:
    means, ratios = leave_one_out([[1.0], [0.0], [3.0]], [1.0, 0.0, 1.0])
    assert means.tolist() == [[3.0], [1.0]]
    assert ratios.tolist() == [2.0, 2.0]


def test_rounding_never_makes_a_fisher_negative() -> None:
    means, _ = leave_one_out(np.array([[1.0], [-1e-9]], np.float32), [1.0, 1.0])
    assert means.min() == 0


def test_equal_groups_give_the_textbook_formula() -> None:
    deleted = np.random.default_rng(0).random((16, 4))
    expected = 15 / 16 * ((deleted - deleted.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(jackknife_variance(np.zeros(4), deleted, np.full(16, 16.0)), expected)


def test_the_variance_of_a_mean_of_unequal_groups() -> None:
    """Over many draws the estimate averages to the true variance of the mean, sigma^2 / N."""
    generator = np.random.default_rng(0)
    sizes = np.array([2, 3, 5, 8, 13, 4, 4, 9])
    group = np.repeat(np.arange(8), sizes)
    estimates = []
    for _ in range(3000):
        values = generator.normal(20, 2, sizes.sum())
        sums = np.bincount(group, values)[:, None]
        means, ratios = leave_one_out(sums, sizes)
        estimates.append(jackknife_variance([values.mean()], means, ratios)[0])
    assert np.mean(estimates) == pytest.approx(4 / sizes.sum(), rel=0.03)


def test_the_bias_of_the_square_of_a_mean_is_its_variance() -> None:
    """E[mean^2] = mu^2 + sigma^2 / N; a mean itself has no bias."""
    generator = np.random.default_rng(0)
    sizes = np.array([2, 3, 5, 8, 13, 4, 4, 9])
    group = np.repeat(np.arange(8), sizes)
    squares, straight = [], []
    for _ in range(3000):
        values = generator.normal(5, 2, sizes.sum())
        means, ratios = leave_one_out(np.bincount(group, values)[:, None], sizes)
        squares.append(jackknife_bias([values.mean() ** 2], means**2, ratios)[0])
        straight.append(jackknife_bias([values.mean()], means, ratios)[0])
    assert np.mean(squares) == pytest.approx(4 / sizes.sum(), rel=0.05)
    np.testing.assert_allclose(straight, 0, atol=1e-12)


def test_halves_are_disjoint_and_whole() -> None:
    sums, weights = np.eye(16), np.ones(16)
    pairs = list(halves(sums, weights))
    assert len(pairs) == 4
    for first, second in pairs:
        np.testing.assert_allclose(first + second, 1 / 8)
        np.testing.assert_allclose(np.sort(np.concatenate([first, second])), [0] * 16 + [1 / 8] * 16)


def test_too_few_groups() -> None:
    for function in (leave_one_out, lambda *a: list(halves(*a))):
        with pytest.raises(
            ValueError, match=r"this one has 1 with images in it, and two are needed\. Use more images"
        ):
            function([[1.0], [0.0]], [1.0, 0.0])
