"""Several labels, each present or not."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.functional.random import random_uniform


class Bernoulli(Likelihood):
    """C labels, each present or not; targets float [N, C] of zeros and ones."""

    name = "bernoulli"
    target = "one vector per image"
    measure = "share of right labels"
    short = "right labels"
    test_measure = "average_precision"  # of few labels among many, nearly all are right when none is found
    test_short = "mean AP"

    def columns(self, outputs: Tensor) -> int:
        return outputs.shape[1]

    def factor_times(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        return coefficients * (outputs.sigmoid() * (-outputs).sigmoid()).sqrt()

    def fisher_times(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        return vectors * outputs.sigmoid() * (-outputs).sigmoid()

    def fisher_trace(self, outputs: Tensor, gram: Tensor) -> Tensor:
        return (outputs.sigmoid() * (-outputs).sigmoid()) @ gram.diagonal()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return targets.to(outputs.dtype) - outputs.sigmoid()

    def sample_score(self, outputs: Tensor, seed: int, draw: int, index: Tensor) -> Tensor:
        uniform = random_uniform(seed, draw, index, outputs.shape[1])
        return self.score(outputs, uniform < outputs.double().sigmoid())

    def read_targets(self, raw: Any) -> Tensor:
        targets = super().read_targets(raw)
        if not bool(((targets == 0) | (targets == 1)).all()):
            raise ValueError("bernoulli targets must be zeros and ones, one for each label")
        return targets

    def describe_target(self, target: Tensor, names: Sequence[str]) -> str:
        return ", ".join(names[k] for k in target.nonzero()[:, 0].tolist()) or "none"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype), reduction="none").sum(1)

    def best_constant(self, targets: Tensor, weights: Tensor, num_outputs: int) -> Tensor:
        return (weights @ targets.to(weights.dtype)).clamp(1e-12, 1 - 1e-12).logit()

    def accuracy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs > 0) == (targets > 0.5)).to(outputs.dtype).mean(1)
