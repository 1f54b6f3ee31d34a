"""Initial values of the noise, and its KL divergence."""

import pytest
import torch

from t2v_lightning.functional.noise.parameters import (
    NoiseParameters,
    initial_log_lambda2,
    initial_log_variance,
)


def test_kl_is_twice_the_divergence_of_gaussians() -> None:
    weights = {"a": torch.randn(3, 2, 2, 2, dtype=torch.float64), "b": torch.randn(4, 5, dtype=torch.float64)}
    noise = NoiseParameters(weights)
    noise.log_variance.data += torch.randn_like(noise.log_variance)
    noise.log_lambda2.data += torch.randn_like(noise.log_lambda2)
    expected = 0.0
    for number, (name, w) in enumerate(weights.items()):
        std = (
            (0.5 * noise.log_variance[noise.layers[name]])
            .exp()
            .view(-1, *[1] * (w.dim() - 1))
            .expand(w.shape)
        )
        prior = torch.distributions.Normal(0.0, (0.5 * noise.log_lambda2[number]).exp())
        divergence = torch.distributions.kl_divergence(torch.distributions.Normal(w, std), prior)
        expected += 2 * divergence.sum().item()
    assert noise.kl().item() == pytest.approx(expected, rel=1e-12)


def test_natural_steps_take_the_geometric_mean_of_the_targets_and_leave_lambda_at_its_optimum() -> None:
    noise = NoiseParameters({"a": torch.randn(3, 2, 2, 2).double(), "b": torch.randn(4, 5).double()})
    sizes, beta = torch.tensor([8.0] * 3 + [5.0] * 4), 0.1
    fishers, targets = torch.rand(3, 7, dtype=torch.float64), []
    for number, fisher in enumerate(fishers, 1):
        targets.append(number * (fisher / (2 * beta) + noise.scale()).log())
        gradient = 0.5 * fisher * sizes / noise.fisher()
        noise.natural_step(gradient, beta, rate=2 / (number + 1))
        mean = torch.stack(targets).sum(0) / (number * (number + 1) / 2)
        torch.testing.assert_close(noise.fisher(), mean.exp())
        slope = torch.autograd.grad(noise.kl(), noise.log_lambda2)[0]
        assert slope.abs().max() < 1e-12


def test_filters_of_one_weight_start_from_the_variance_of_their_layer() -> None:
    weight = torch.tensor([[1.0], [3.0], [5.0]])
    torch.testing.assert_close(initial_log_variance(weight), torch.full((3,), 0.05 * 4.0).log())
    assert initial_log_variance(torch.ones(1, 1)).isfinite().all()
    assert initial_log_lambda2(weight) == pytest.approx(torch.tensor(35 / 3).log())
