"""Newton's method for the head: distance from the optimum by brute force, wide and tall, whole and in parts."""

from collections.abc import Iterator

import pytest
import torch
from oracles import log_likelihood
from torch import Tensor

from t2v_lightning.functional.head import Batch, fit_newton
from t2v_lightning.functional.likelihood import LIKELIHOODS, get_likelihood

NAMES = list(LIKELIHOODS)


def problem(name: str, samples: int, size: int, outputs: int = 3) -> Batch:
    """Samples in float64 whose targets depend on them, noisily, with uneven weights."""
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(samples, size, dtype=torch.float64, generator=generator)
    z[:, -1] = 1
    noisy = z[:, :outputs] + torch.randn(samples, outputs, dtype=torch.float64, generator=generator)
    targets = {"softmax": noisy.argmax(1), "bernoulli": (noisy > 1).double(), "gaussian": noisy}[name]
    weights = torch.rand(samples, dtype=torch.float64, generator=generator)
    return z, targets, weights / weights.sum()


def distance_bound(theta: Tensor, batch: Batch, name: str, penalty: float) -> float:
    """Bound of the relative distance from the optimum: the objective is `penalty`-strongly convex."""
    z, y, w = batch
    at = theta.clone().requires_grad_()
    losses = [-log_likelihood(at @ row, target, name) for row, target in zip(z, y, strict=True)]
    (w @ torch.stack(losses) + 0.5 * penalty * at.square().sum()).backward()
    assert at.grad is not None
    return float(at.grad.norm() / penalty / theta.norm())


class Streamed:
    """A batch in parts of five samples, read anew each time."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        yield from zip(*(part.split(5) for part in self.batch), strict=True)


@pytest.mark.parametrize("penalty", [1e-4, 0.1])
@pytest.mark.parametrize(("samples", "size"), [(40, 5), (12, 30), (20, 25)])
@pytest.mark.parametrize("name", NAMES)
def test_the_head_is_the_optimum_to_nine_digits(name: str, samples: int, size: int, penalty: float) -> None:
    batch = problem(name, samples, size)
    theta = fit_newton([batch], 3, get_likelihood(name), penalty)
    assert theta.shape == (3, size)
    assert distance_bound(theta, batch, name, penalty) < 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_samples_in_parts_give_the_same_head(name: str) -> None:
    batch = problem(name, 12, 30)
    whole = fit_newton([batch], 3, get_likelihood(name), 1e-3)
    parts = fit_newton(Streamed(batch), 3, get_likelihood(name), 1e-3)
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9 * float(whole.abs().max()))


def test_linear_regression_without_a_penalty_is_least_squares() -> None:
    z, y, w = problem("gaussian", 40, 5)
    root = w.sqrt()[:, None]
    expected = torch.linalg.lstsq(root * z, root * y).solution.T
    torch.testing.assert_close(
        fit_newton([(z, y, w)], 3, get_likelihood("gaussian"), 0.0), expected, rtol=1e-7, atol=1e-8
    )


def test_classes_that_a_plane_parts_have_a_head_without_a_penalty_too() -> None:
    z, y, w = problem("softmax", 12, 30)
    theta = fit_newton([(z, y, w)], 3, get_likelihood("softmax"), 0.0)
    assert bool(theta.isfinite().all())
    assert float(w @ get_likelihood("softmax").loss(z @ theta.T, y)) < 1e-6


def test_inputs_that_say_nothing_give_a_head_of_zeros() -> None:
    _, y, w = problem("softmax", 12, 4)
    theta = fit_newton([(torch.zeros(12, 4).double(), y, w)], 3, get_likelihood("softmax"), 0.1)
    assert torch.equal(theta, torch.zeros(3, 4).double())


def test_progress_tells_loss_and_accuracy_of_every_step() -> None:
    z, y, w = problem("softmax", 40, 5)
    told: list[tuple[float, float, int]] = []
    kind = get_likelihood("softmax")
    theta = fit_newton([(z, y, w)], 3, kind, 1e-3, lambda *numbers: told.append(numbers))
    assert [step for *_, step in told] == list(range(1, len(told) + 1))
    assert [loss for loss, *_ in told] == sorted((loss for loss, *_ in told), reverse=True)
    assert told[-1][0] == pytest.approx(float(w @ kind.loss(z @ theta.T, y)))
    assert told[-1][1] == pytest.approx(float(w @ kind.accuracy(z @ theta.T, y)))
