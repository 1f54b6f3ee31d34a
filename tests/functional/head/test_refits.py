"""How sure a head may be: outputs for the other half, and the factor that makes the targets likeliest."""

from collections.abc import Iterator

import pytest
import torch
from oracles import log_likelihood
from scipy.optimize import minimize_scalar
from torch import Tensor

from t2v_lightning.functional.head import Batch, best_sharpness, cross_fitted_outputs, fit_newton
from t2v_lightning.functional.likelihood import LIKELIHOODS, get_likelihood

NAMES = list(LIKELIHOODS)


def problem(name: str) -> Batch:
    """Twenty samples in float64 with more inputs than a head can be sure about."""
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(20, 12, dtype=torch.float64, generator=generator)
    noisy = z[:, :3] + torch.randn(20, 3, dtype=torch.float64, generator=generator)
    targets = {"softmax": noisy.argmax(1), "bernoulli": (noisy > 0).double(), "gaussian": noisy}[name]
    return z, targets, torch.full((20,), 0.05, dtype=torch.float64)


class Streamed:
    """A batch in parts of seven samples, read anew each time."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        yield from zip(*(part.split(7) for part in self.batch), strict=True)


HALVES = torch.arange(20) % 3 == 0


@pytest.mark.parametrize("name", NAMES)
def test_no_sample_counts_for_its_own_outputs(name: str) -> None:
    z, y, w = problem(name)
    (before,) = cross_fitted_outputs([(z, y, w)], HALVES, 3, get_likelihood(name), 1e-2)
    changed = torch.where(HALVES if y.dim() == 1 else HALVES[:, None], y.roll(1, 0), y)
    (after,) = cross_fitted_outputs([(z, changed, w)], HALVES, 3, get_likelihood(name), 1e-2)
    assert torch.equal(after[HALVES], before[HALVES])
    assert not torch.equal(after[~HALVES], before[~HALVES])


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_about_those_of_the_optimum_of_the_other_half(name: str) -> None:
    z, y, w = problem(name)
    (outputs,) = cross_fitted_outputs([(z, y, w)], HALVES, 3, get_likelihood(name), 1e-2)
    for half in (HALVES, ~HALVES):
        weights = w[~half] / w[~half].sum()
        theta = fit_newton([(z[~half], y[~half], weights)], 3, get_likelihood(name), 1e-2)
        expected = z[half] @ theta.T
        assert float((outputs[half] - expected).norm() / expected.norm()) < 0.2


def test_samples_in_parts_give_the_same_outputs() -> None:
    batch = problem("softmax")
    (whole,) = cross_fitted_outputs([batch], HALVES, 3, get_likelihood("softmax"), 1e-2)
    parts = cross_fitted_outputs(Streamed(batch), HALVES, 3, get_likelihood("softmax"), 1e-2)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [0.5, 5.0])
def test_the_sharpness_is_the_best_factor_between_0_and_1(name: str, factor: float) -> None:
    z, y, w = problem(name)
    outputs = factor * z[:, :3]
    counted = torch.arange(20) > 4

    def loss(s: float) -> float:
        pairs = zip(outputs[counted], y[counted], strict=True)
        return -float(sum(log_likelihood(s * f, target, name) for f, target in pairs))

    best = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    parts = list(outputs.split(7))
    found = best_sharpness(parts, Streamed((z, y, w)), get_likelihood(name), counted)
    assert found == pytest.approx(best.x, abs=1e-6)


@pytest.mark.parametrize(("sign", "sharpness"), [(1.0, 1.0), (-1.0, 0.0)])
def test_a_head_that_is_always_right_stays_sure_and_one_that_is_always_wrong_guesses(
    sign: float, sharpness: float
) -> None:
    y = torch.arange(6) % 3
    outputs: Tensor = sign * 30 * torch.nn.functional.one_hot(y).double()
    batch = (outputs, y, torch.full((6,), 1 / 6, dtype=torch.float64))
    found = best_sharpness([outputs], [batch], get_likelihood("softmax"), torch.ones(6).bool())
    assert found == pytest.approx(sharpness, abs=1e-6)
