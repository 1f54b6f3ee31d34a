r"""Experts as points in the space of tasks, learned so that the best expert of a task is the nearest.

Section 4 of Achille et al., *Task2Vec: Task Embedding for Meta-Learning*, ICCV 2019: an expert j lies at
:math:`m_j = F_j + b_j`, where :math:`F_j` is the task that it was trained on (0 where unknown) and :math:`b_j`
is learned, together with a temperature T, by the cross-entropy of

.. math:: p(j \mid t) = \mathrm{softmax}_j \left( - d(t, m_j) / T \right)

to the best expert of each task t, without a penalty.

Tasks are in the coordinates :math:`x = h / (h + u) - 1/2`, which Task2Vec's distance gives a task with entries h beside
one with entries u, here the typical task of the library: 0 is a typical task. In them d is the mean squared difference,
whose gradient is a product of matrices, where the distance of each pair has quotients of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from t2v_lightning.library.evidence import Evidence, Prediction, Query
from t2v_lightning.library.methods.nearest_expert import by_score

_STEPS, _LEAST = 200, 1e-3
"""Most steps of L-BFGS, and the loss at which classes that a plane parts count as learned."""


def task_coordinates(fisher: NDArray[np.float32], typical: NDArray[np.float32]) -> Tensor:
    """h / (h + u) - 1/2 of tasks h [N, D] beside the typical one u [D]: float32 [N, D], 0 where both are 0.

    >>> task_coordinates(np.array([[1.0, 3.0, 0.0]], np.float32), np.ones(3, np.float32))
    tensor([[ 0.0000,  0.2500, -0.5000]])
    """
    total = fisher + typical
    shares = np.divide(fisher, total, out=np.full_like(total, 0.5), where=total > 0)
    return torch.from_numpy(shares - 0.5)


class ExpertEmbedding(nn.Module):
    """The points m_j of E experts.

    Args:
        of_tasks: F_j, float [E, D]: the coordinates of the task that each expert was trained on, 0 where unknown.
        temperature: T at the start, above 0.

    >>> experts = ExpertEmbedding(torch.tensor([[0.4, 0.0], [0.0, 0.4]]))
    >>> experts(torch.tensor([[0.3, 0.1]])).argmax(1)
    tensor([0])
    """

    def __init__(self, of_tasks: Tensor, temperature: float = 0.1) -> None:
        super().__init__()
        self.of_tasks: Tensor
        self.register_buffer("of_tasks", of_tasks)
        self.offsets = nn.Parameter(torch.zeros_like(of_tasks))
        self.log_temperature = nn.Parameter(torch.tensor(temperature, dtype=of_tasks.dtype).log())

    @property
    def points(self) -> Tensor:
        """m_j, [E, D]."""
        return self.of_tasks + self.offsets

    def distances(self, tasks: Tensor) -> Tensor:
        """Mean squared difference of tasks [N, D] and experts, [N, E]."""
        m = self.points
        squares = tasks.square().sum(1, keepdim=True) + m.square().sum(1)
        return (squares - 2 * tasks @ m.T) / m.shape[1]

    def forward(self, tasks: Tensor) -> Tensor:
        """Logits [N, E] of being the best expert, for tasks [N, D]."""
        return -self.distances(tasks) * (-self.log_temperature).exp()


class ExpertEmbeddingModule(LightningModule):
    """The same for a Trainer: a batch has tasks [N, D] and the number of the best expert of each, int64 [N].

    Args:
        experts: what to train.
        lr: of Adam.
    """

    def __init__(self, experts: ExpertEmbedding, lr: float = 0.01) -> None:
        super().__init__()
        self.experts, self.lr = experts, lr

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        tasks, best = batch
        loss = F.cross_entropy(self.experts(tasks), best)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


@torch.enable_grad()
def train_experts(experts: ExpertEmbedding, tasks: Tensor, best: Tensor) -> float:
    """Learns offsets and temperature by L-BFGS on all tasks at once, to convergence; returns the loss.

    Args:
        experts: trained in place.
        tasks: float [L, D].
        best: int64 [L], the number of the best expert.
    """
    optimizer = torch.optim.LBFGS(
        experts.parameters(), max_iter=1, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(experts(tasks), best)
        loss.backward()
        return loss

    before = float("inf")
    for _ in range(_STEPS):
        loss = float(optimizer.step(closure).detach())
        if loss < _LEAST or before - loss < 1e-6 * loss:
            break
        before = loss
    return loss


def expert_embedding(evidence: Evidence, query: Query) -> Prediction:
    """Experts by the distance of a task from points that are learned on the library's tasks.

    Tasks for which only one expert has a result say nothing and are left out.

    Raises:
        ValueError: no task has results of two experts, or the embeddings themselves are not given.
    """
    if evidence.fisher is None or evidence.of_experts is None or query.fisher is None:
        raise ValueError(
            "experts are learned from embeddings; give fisher and of_experts, and that of the query"
        )
    errors = evidence.others
    told = (~np.isnan(errors)).sum(1) > 1
    if not told.any():
        raise ValueError(
            "no task of the library has results of two experts, so none is known to be the better"
        )
    typical = np.median(evidence.fisher, axis=0)
    tasks = task_coordinates(evidence.fisher[told], typical)
    own = task_coordinates(evidence.of_experts, typical)
    own[torch.from_numpy(np.asarray(~evidence.of_experts.any(1)))] = 0
    experts = ExpertEmbedding(
        own, max(float(tasks.var(0, correction=min(1, len(tasks) - 1)).mean()) / 5, 1e-6)
    )
    train_experts(experts, tasks, torch.from_numpy(np.nanargmin(errors[told], axis=1)))
    with torch.no_grad():
        distances = experts.distances(task_coordinates(query.fisher[None], typical))[0]
    return Prediction(by_score(distances.double().numpy(), evidence), np.zeros(len(evidence)))
