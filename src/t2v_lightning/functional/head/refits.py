r"""Heads without each of several groups of samples: what an embedding would be had other samples been there.

The head of all samples is where the search for theta_g, the optimum without the samples of group g, begins; a few steps
of Newton's method for all groups together end near it. Of a sample's squared gradients below the head, all change by
about the factor by which the length of its gradient in the features does,

.. math:: \rho_{ng} = \frac{\operatorname{tr} W_g^\top H(f_{ng}) W_g}{\operatorname{tr} W^\top H(f_n) W}, \qquad
    f_{ng} = \theta_g z_n ,

with W the weights without the bias and H the Fisher information of the outputs, so that the Fisher information with
theta_g needs no pass through the network. Without its own group a sample is one that the head has not seen:
:math:`f_{n g(n)}` are its cross-fitted outputs.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from t2v_lightning.functional.head.newton import Batch
from t2v_lightning.functional.likelihood import Likelihood

_STEPS, _SOLVER_STEPS, _TOLERANCE = 4, 50, 0.1
_NEAR = 0.01
"""A step that promises to gain less than this share of the objective is the last one."""
_COLUMNS = 2**11
"""Most outputs of heads that are fitted together, or one head with more."""
_LARGEST = 1e6
"""Of a sample that a head is surer of than that, float32 holds no squared gradient to multiply."""


class Refits(NamedTuple):
    """What heads without one group of samples give.

    Attributes:
        ratios: float64 [N, G], rho of each sample and group; 1 for a group that nothing was left out of.
        outputs: float [N, C], of each sample by the head without its own group, where they were asked for.
    """

    ratios: Tensor
    outputs: Tensor | None


@torch.no_grad()
def refit_without_groups(
    batches: Iterable[Batch],
    theta: Tensor,
    bias: Tensor | None,
    groups: Tensor,
    left_out: Tensor,
    likelihood: Likelihood,
    penalty: float,
    *,
    count: int,
    crossed: bool = False,
) -> Refits:
    """Fits a head without each group.

    Memory holds G heads and a few times 2,048 outputs, or those of one head, for each sample of a batch.

    Args:
        batches: all samples, as for `fit_newton`.
        theta: float64 [C, Q], the head of all samples, which minimises the same objective.
        bias: float64 [Q], what theta is multiplied with to give the bias; None for a head without one.
        groups: int64 [N], the group 0..G-1 of each sample, in the order of the batches.
        left_out: bool [N], whether a sample is left out with its group; one that stays in keeps the output that the
            head of all samples gives. Some weight must be left without any group.
        likelihood: of the targets.
        penalty: of the head.
        count: G.
        crossed: return cross-fitted outputs and take H at them, with f_ng moved by as much as those of the head of all
            samples are.

    >>> from t2v_lightning.functional.likelihood import get_likelihood
    >>> z, y = torch.ones(2, 1).double(), torch.tensor([[1.0], [3.0]])
    >>> both = [(z, y, torch.full((2,), 0.5).double())]
    >>> one, every = torch.tensor([0, 1]), torch.ones(2).bool()
    >>> kind, theta = get_likelihood("gaussian"), torch.tensor([[2.0]]).double()
    >>> refits = refit_without_groups(both, theta, None, one, every, kind, 0.0, count=2, crossed=True)
    >>> refits.outputs[:, 0]  # the mean is 2, and without either sample it is the other
    tensor([3., 1.], dtype=torch.float64)
    >>> refits.ratios[0]
    tensor([2.2500, 0.2500], dtype=torch.float64)
    """
    some = groups[left_out].unique()
    heads = theta.new_empty(len(some), *theta.shape)
    at_once = max(_COLUMNS // len(theta), 1)
    for start in range(0, len(some), at_once):
        part = slice(start, start + at_once)
        heads[part] = _Stack(batches, some[part], groups, left_out, likelihood, penalty).minimise(theta)
    ratios, outputs = [], []
    full, grams = _gram(theta, bias), [_gram(head, bias) for head in heads]
    for (z, _, _), group, out in _with_groups(batches, groups, left_out):
        own = z @ theta.T
        at = own.clone()
        for number, head in zip(some.tolist(), heads, strict=True) if crossed else ():
            without = (group == number) & out
            at[without] = z[without] @ head.T
        before = likelihood.fisher_trace(at, full)
        rho = z.new_ones(len(z), count)
        for number, head, gram in zip(some.tolist(), heads, grams, strict=True):
            after = likelihood.fisher_trace(z @ head.T - own + at, gram)
            rho[:, number] = torch.where(before > 0, (after / before).clamp_max(_LARGEST), 1.0)
        ratios.append(rho)
        outputs.append(at)
    return Refits(torch.cat(ratios), torch.cat(outputs) if crossed else None)


class _Stack:
    """Objectives of heads [G, C, Q], one for each group that is left out."""

    def __init__(
        self,
        batches: Iterable[Batch],
        numbers: Tensor,
        groups: Tensor,
        left_out: Tensor,
        likelihood: Likelihood,
        penalty: float,
    ) -> None:
        self.count, self.likelihood, self.penalty = len(numbers), likelihood, penalty
        self.members: Iterable[Batch] = _Members(batches, numbers, groups, left_out)
        self.keeps_outputs = isinstance(batches, list)
        if self.keeps_outputs:
            self.members = list(self.members)

    def minimise(self, start: Tensor) -> Tensor:
        heads = start.expand(self.count, *start.shape).clone()
        value, gradient, outputs = self._at(heads)
        unfinished = torch.ones_like(value, dtype=torch.bool)
        for _ in range(_STEPS):
            direction = self._solve(heads, gradient, outputs) * unfinished[:, None, None]
            slope = (gradient * direction).sum((1, 2))
            share = torch.ones_like(slope)
            for _ in range(30):
                trial, new, of_trial = self._at(heads + share[:, None, None] * direction)
                fails = trial > value + 1e-4 * share * slope
                if not bool(fails.any()):
                    break
                share = torch.where(fails, share / 2, share)
            heads = heads + torch.where(fails, 0, share)[:, None, None] * direction
            unfinished &= ~fails & (-0.5 * slope > _NEAR * value)
            if not bool(unfinished.any()):
                break
            value, gradient, outputs = trial, new, of_trial
        return heads

    def _at(self, heads: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Objectives [G] and gradients [G, C, Q], and the outputs for each batch where memory may hold them."""
        value = 0.5 * self.penalty * heads.square().sum((1, 2))
        gradient, outputs = self.penalty * heads, []
        for z, y, m in self.members:
            f, targets = _outputs(z, heads), y.repeat_interleave(len(heads), 0)
            value += (m * self.likelihood.loss(f, targets).view_as(m)).sum(0)
            gradient -= _back(z, m, self.likelihood.score(f, targets))
            if self.keeps_outputs:
                outputs.append(f)
        return value, gradient, outputs

    def _solve(self, heads: Tensor, gradient: Tensor, outputs: list[Tensor]) -> Tensor:
        """Hessian^-1 (-gradient), roughly, by conjugate gradients for all heads side by side."""
        solution, residual = torch.zeros_like(gradient), -gradient
        along = residual
        length = first = residual.square().sum((1, 2))
        for _ in range(_SOLVER_STEPS):
            product = self.penalty * along
            for number, (z, _, m) in enumerate(self.members):
                f = outputs[number] if self.keeps_outputs else _outputs(z, heads)
                product += _back(z, m, self.likelihood.fisher_times(f, _outputs(z, along)))
            curvature = (along * product).sum((1, 2))
            goes_on = (length > _TOLERANCE**2 * first) & (curvature > 0)
            share = torch.where(goes_on, length / curvature, 0.0)[:, None, None]
            solution = solution + share * along
            residual = residual - share * product
            before, length = length, residual.square().sum((1, 2))
            if not bool((goes_on & (length > _TOLERANCE**2 * first)).any()):
                break
            along = residual + torch.where(goes_on, length / before, 0.0)[:, None, None] * along
        return solution


class _Members:
    """Inputs [n, Q], targets, and weights [n, G] without the samples of each group, which sum to 1."""

    def __init__(self, batches: Iterable[Batch], numbers: Tensor, groups: Tensor, left_out: Tensor) -> None:
        self.batches, self.numbers, self.groups, self.left_out = batches, numbers, groups, left_out
        self.totals = torch.stack([w.sum(0) for _, _, w in self._those()]).sum(0)

    def __iter__(self) -> Iterator[Batch]:
        for z, y, w in self._those():
            yield z, y, w / self.totals

    def _those(self) -> Iterator[Batch]:
        for (z, y, w), group, out in _with_groups(self.batches, self.groups, self.left_out):
            without = (group[:, None] == self.numbers.to(z.device)) & out[:, None]
            yield z, y, w[:, None] * ~without


def _outputs(z: Tensor, heads: Tensor) -> Tensor:
    """[n G, C], the outputs of all heads for a sample one after another."""
    return (z @ heads.flatten(0, 1).T).view(-1, heads.shape[1])


def _back(z: Tensor, m: Tensor, of_outputs: Tensor) -> Tensor:
    """Weighted sums [G, C, Q] of the outer products of something [n G, C] with the inputs."""
    weighted = of_outputs.view(*m.shape, -1) * m[..., None]
    return (weighted.flatten(1).T @ z).view(m.shape[1], -1, z.shape[1])


def _with_groups(
    batches: Iterable[Batch], groups: Tensor, left_out: Tensor
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    start = 0
    for batch in batches:
        rows = slice(start, start + len(batch[0]))
        device = batch[0].device
        yield batch, groups[rows].to(device), left_out[rows].to(device)
        start = rows.stop


def _gram(theta: Tensor, bias: Tensor | None) -> Tensor:
    """W W^T [C, C] of the weights without the bias."""
    gram = theta @ theta.T
    return gram if bias is None else gram - torch.outer(theta @ bias, theta @ bias)
