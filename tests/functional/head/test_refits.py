"""Heads without each group of samples, against heads that SciPy fits to the samples that are left."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from oracles import log_likelihood, output_fisher
from scipy.optimize import minimize
from torch import Tensor

from t2v_lightning.functional.head import (
    Batch,
    Refits,
    fit_newton,
    in_row_space,
    refit_without_groups,
    refits,
)
from t2v_lightning.functional.likelihood import LIKELIHOODS, get_likelihood

NAMES = list(LIKELIHOODS)
PENALTY, GROUPS = 1e-2, 6
GROUP = torch.arange(20) % 4  # of which two are without samples
ALL = torch.ones(20, dtype=torch.bool)


def problem(name: str, size: int = 7) -> Batch:
    """Twenty samples in float64, whose last input is the one of the bias, with uneven weights."""
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(20, size, dtype=torch.float64, generator=generator)
    z[:, -1] = 1
    noisy = z[:, :3] + torch.randn(20, 3, dtype=torch.float64, generator=generator)
    targets = {"softmax": noisy.argmax(1), "bernoulli": (noisy > 0).double(), "gaussian": noisy}[name]
    weights = torch.rand(20, dtype=torch.float64, generator=generator) + 0.2
    return z, targets, weights / weights.sum()


class Streamed:
    """A batch in parts of seven samples, read anew each time."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        yield from zip(*(part.split(7) for part in self.batch), strict=True)


def refitted(batches: Any, name: str, left_out: Tensor = ALL, crossed: bool = False) -> Refits:
    theta = fit_newton(batches, 3, get_likelihood(name), PENALTY)
    bias = torch.eye(theta.shape[1], dtype=torch.float64)[-1]
    return refit_without_groups(
        batches, theta, bias, GROUP, left_out, get_likelihood(name), PENALTY, count=GROUPS, crossed=crossed
    )


def optimum(batch: Batch, name: str) -> Tensor:
    """The head [3, Q] of these samples, with weights scaled to the sum 1."""
    z, y, w = batch

    def value_and_slope(flat: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        theta = torch.tensor(flat, requires_grad=True)
        rows = zip(z @ theta.view(3, -1).T, y, strict=True)
        losses = torch.stack([-log_likelihood(f, target, name) for f, target in rows])
        value = w @ losses / w.sum() + 0.5 * PENALTY * theta.square().sum()
        return value.item(), torch.autograd.grad(value, theta)[0].numpy()

    start = np.zeros(3 * z.shape[1])
    found = minimize(value_and_slope, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    return torch.tensor(found.x).view(3, -1)


def expected(batch: Batch, name: str, left_out: Tensor, crossed: bool) -> tuple[Tensor, Tensor]:
    """Ratios [20, 6] and cross-fitted outputs [20, 3] from their definition."""
    z, y, w = batch
    whole, own = optimum(batch, name), torch.empty(20, 3, dtype=torch.float64)
    heads = []
    for group in range(GROUPS):
        rest = ~((group == GROUP) & left_out)
        heads.append(optimum((z[rest], y[rest], w[rest]), name))
        own[group == GROUP] = z[group == GROUP] @ (heads[-1] if bool((~rest).any()) else whole).T
    own[~left_out] = z[~left_out] @ whole.T

    def trace(theta: Tensor, outputs: Tensor) -> Tensor:
        weight = theta[:, :-1]
        return (weight.T @ output_fisher(outputs, name) @ weight).trace()

    ratios = torch.ones(20, GROUPS, dtype=torch.float64)
    for n in range(20):
        at = own[n] if crossed else whole @ z[n]
        for group, head in enumerate(heads):
            ratios[n, group] = trace(head, head @ z[n] - whole @ z[n] + at) / trace(whole, at)
    return ratios, own


@pytest.fixture
def to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps go on until the optimum."""
    for name, value in (("_STEPS", 30), ("_NEAR", 1e-12), ("_TOLERANCE", 1e-3)):
        monkeypatch.setattr(refits, name, value)


@pytest.mark.usefixtures("to_the_end")
@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_ratios_and_outputs_are_those_of_heads_of_the_samples_that_are_left(name: str, crossed: bool) -> None:
    left_out = torch.arange(20) % 5 > 0
    found = refitted([problem(name)], name, left_out, crossed)
    ratios, outputs = expected(problem(name), name, left_out, crossed)
    torch.testing.assert_close(found.ratios, ratios, rtol=1e-4, atol=1e-6)
    if crossed:
        torch.testing.assert_close(found.outputs, outputs, rtol=1e-4, atol=1e-5)
    else:
        assert found.outputs is None


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_are_near_enough(name: str) -> None:
    found = refitted([problem(name)], name).ratios
    ratios, _ = expected(problem(name), name, ALL, False)
    assert float((found - ratios).norm() / (ratios - 1).norm()) < 0.15


@pytest.mark.usefixtures("to_the_end")
@pytest.mark.parametrize("name", NAMES)
def test_no_sample_counts_for_its_own_outputs(name: str) -> None:
    z, y, w = problem(name)
    group = GROUP == 1
    before = refitted([(z, y, w)], name, crossed=True).outputs
    changed = torch.where(group if y.dim() == 1 else group[:, None], y.roll(1, 0), y)
    after = refitted([(z, changed, w)], name, crossed=True).outputs
    assert before is not None
    assert after is not None
    torch.testing.assert_close(after[group], before[group], rtol=1e-4, atol=1e-4)
    assert float((after[~group] - before[~group]).abs().max()) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_samples_in_parts_and_groups_in_turn_give_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = refitted([problem(name)], name, crossed=True)
    monkeypatch.setattr(refits, "_COLUMNS", 3)
    parts = refitted(Streamed(problem(name)), name, crossed=True)
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_the_space_of_few_samples_gives_the_same() -> None:
    z, y, w = problem("softmax", 60)
    batches, basis = in_row_space([(z, y, w)])
    assert basis is not None
    theta = fit_newton([(z, y, w)], 3, get_likelihood("softmax"), PENALTY)
    rest: tuple[Any, ...] = (GROUP, ALL, get_likelihood("softmax"), PENALTY)
    small = refit_without_groups(batches, theta @ basis, basis[-1], *rest, count=GROUPS)
    large = refit_without_groups([(z, y, w)], theta, torch.eye(60).double()[-1], *rest, count=GROUPS)
    torch.testing.assert_close(small.ratios, large.ratios, rtol=1e-8, atol=1e-10)


def test_a_group_without_samples_changes_nothing() -> None:
    found = refitted([problem("softmax")], "softmax").ratios
    assert bool((found[:, 4:] == 1).all())
    assert bool((found[:, :4] != 1).any(0).all())
