"""Regression."""

from collections.abc import Sequence

from torch import Tensor

from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.functional.random import random_normal


class Gaussian(Likelihood):
    """Regression with unit variance; targets float [N, C]."""

    name = "gaussian"
    target = "one vector per image"
    measure = "1 - squared error"

    def columns(self, outputs: Tensor) -> int:
        return outputs.shape[1]

    def factor_times(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        return coefficients

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return targets.to(outputs.dtype) - outputs

    def sample_score(self, outputs: Tensor, seed: int, draw: int, index: Tensor) -> Tensor:
        return random_normal(seed, draw, index, outputs.shape[1]).to(outputs.dtype)

    def describe_target(self, target: Tensor, names: Sequence[str]) -> str:
        return ", ".join(f"{value:.3g}" for value in target.flatten().tolist())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (targets.to(outputs.dtype) - outputs).square().sum(1)

    def best_constant(self, targets: Tensor, weights: Tensor, num_outputs: int) -> Tensor:
        return weights @ targets.to(weights.dtype)

    def accuracy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 1.0 - (targets.to(outputs.dtype) - outputs).square().mean(1)

    def describe_accuracy(self, accuracy: float) -> str:
        return f"{self.measure} {accuracy:.3g}"
