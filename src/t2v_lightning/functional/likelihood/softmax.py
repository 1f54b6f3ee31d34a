"""One class out of several."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.functional.random import random_uniform


class Softmax(Likelihood):
    """One class out of C; targets int64 [N]."""

    name = "softmax"
    target = "one integer class per image"
    measure = short = test_measure = test_short = "accuracy"
    has_classes = True

    def columns(self, outputs: Tensor) -> int:
        return outputs.shape[1] - 1

    def factor_times(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        p, order = outputs.softmax(1).sort(dim=1, descending=True, stable=True)
        tail = p.flip(1).cumsum(1).flip(1)  # t_k = p_k + p_{k+1} + ...
        following = tail[:, 1:].clamp_min(torch.finfo(p.dtype).tiny)
        scaled = (
            coefficients * (p[:, :-1] * following / tail[:, :-1].clamp_min(torch.finfo(p.dtype).tiny)).sqrt()
        )
        # row j of L c: its own column, minus p_j times what all earlier columns put on the classes after them
        earlier = F.pad((scaled / following).cumsum(1), (1, 0))
        product = F.pad(scaled, (0, 1)) - p * earlier
        return torch.zeros_like(product).scatter(1, order, product)

    def fisher_times(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        p = outputs.softmax(1)
        weighted = p * vectors
        return weighted - p * weighted.sum(1, keepdim=True)

    def fisher_trace(self, outputs: Tensor, gram: Tensor) -> Tensor:
        p = outputs.softmax(1)
        return p @ gram.diagonal() - ((p @ gram) * p).sum(1)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        score = -outputs.softmax(1)
        return score.scatter_add_(1, targets[:, None], torch.ones_like(score[:, :1]))

    def sample_score(self, outputs: Tensor, seed: int, draw: int, index: Tensor) -> Tensor:
        cumulative = outputs.double().softmax(1).cumsum(1)
        labels = (cumulative < random_uniform(seed, draw, index, 1) * cumulative[:, -1:]).sum(1)
        return self.score(outputs, labels)

    def read_targets(self, raw: Any) -> Tensor:
        """One integer for each sample, int64 [N]; a column [N, 1] is allowed too."""
        labels = self._stack(raw)
        if labels.dim() == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
            raise TypeError(
                f"softmax targets must be {self.target}, got {labels.dtype} of shape {tuple(labels.shape)}; use "
                "likelihood='bernoulli' for multi-label or 'gaussian' for real targets"
            )
        return labels.long()

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        if targets.shape != outputs.shape[:1] or targets.is_floating_point():
            raise ValueError(
                f"softmax targets must be one integer label per sample, shape ({len(outputs)},); got {targets.dtype} "
                f"of shape {tuple(targets.shape)}"
            )
        if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < outputs.shape[1]):
            raise ValueError(
                f"targets range over {int(targets.min())}..{int(targets.max())}, but the network has "
                f"{outputs.shape[1]} outputs, so labels must lie in 0..{outputs.shape[1] - 1}"
            )

    def describe_target(self, target: Tensor, names: Sequence[str]) -> str:
        return names[int(target)]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    def best_constant(self, targets: Tensor, weights: Tensor, num_outputs: int) -> Tensor:
        share = torch.zeros(num_outputs, dtype=weights.dtype, device=weights.device)
        return share.index_add(0, targets, weights).clamp_min(1e-300).log()

    def accuracy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(1) == targets).to(outputs.dtype)
