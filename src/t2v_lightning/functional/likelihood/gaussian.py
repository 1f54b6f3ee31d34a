"""Regression."""

from collections.abc import Sequence

import torch
from torch import Tensor

from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.functional.random import random_normal


class Gaussian(Likelihood):
    """Regression with unit variance; targets float [N, C].

    A head is fitted to targets of mean 0 and variance 1, so that neither the fit nor the embedding depends on the
    unit in which a task measures.
    """

    name = "gaussian"
    target = "one vector per image"
    measure = short = test_short = "R^2"
    test_measure = "R2"

    def columns(self, outputs: Tensor) -> int:
        return outputs.shape[1]

    def factor_times(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        return coefficients

    def fisher_times(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        return vectors

    def fisher_trace(self, outputs: Tensor, gram: Tensor) -> Tensor:
        return gram.diagonal().sum().expand(len(outputs))

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return targets.to(outputs.dtype) - outputs

    def sample_score(self, outputs: Tensor, seed: int, draw: int, index: Tensor) -> Tensor:
        return random_normal(seed, draw, index, outputs.shape[1]).to(outputs.dtype)

    def standardise(self, targets: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, list[float]]]:
        """Each column less its weighted mean, divided by its standard deviation; a constant column becomes 0.

        Raises:
            ValueError: all columns are constant.

        >>> Gaussian().standardise(torch.tensor([[1.0], [3.0]]), torch.tensor([0.5, 0.5], dtype=torch.float64))
        (tensor([[-1.],
                [ 1.]]), {'target_mean': [2.0], 'target_std': [1.0]})
        """
        constant = (targets == targets[:1]).all(0)
        if bool(constant.all()):
            raise ValueError(
                f"all {len(targets)} samples carry the one target {targets[0].tolist()}; a regression needs targets "
                "that differ"
            )
        numbers = targets.double()
        mean = weights @ numbers
        std = (weights @ (numbers - mean).square()).sqrt()
        mean, std = torch.where(constant, numbers[0], mean), torch.where(constant, 1.0, std)
        units = {"target_mean": mean.tolist(), "target_std": std.tolist()}
        return ((numbers - mean) / std).to(targets.dtype), units

    def describe_target(self, target: Tensor, names: Sequence[str]) -> str:
        return ", ".join(f"{value:.3g}" for value in target.flatten().tolist())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (targets.to(outputs.dtype) - outputs).square().sum(1)

    def best_constant(self, targets: Tensor, weights: Tensor, num_outputs: int) -> Tensor:
        return weights @ targets.to(weights.dtype)

    def accuracy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """1 - squared error."""
        return 1.0 - (targets.to(outputs.dtype) - outputs).square().mean(1)

    def measured(self, accuracy: float, loss: float, constant_loss: float) -> float:
        """R^2, the share of the variance of all columns together that is explained; NaN where there is none."""
        return 1 - loss / constant_loss if constant_loss else float("nan")

    def accuracy_text(self, measured: float) -> str:
        return f"{measured:.3f}"
