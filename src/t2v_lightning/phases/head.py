"""Fits a linear head on stored features."""

import copy
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from t2v_lightning.functional.fisher_sums import GROUPS, group_of
from t2v_lightning.functional.head import (
    Batch,
    Progress,
    Refits,
    fit_newton,
    in_row_space,
    refit_without_groups,
    with_ones,
)
from t2v_lightning.functional.likelihood import Likelihood, get_likelihood
from t2v_lightning.functional.random import random_bits
from t2v_lightning.loading.selection import Selection
from t2v_lightning.phases.base import LogMetrics
from t2v_lightning.phases.feature_store import Features, blocks
from t2v_lightning.phases.options import HeadMethod, HeadOptions

logger = logging.getLogger(__name__)

_ADVICE: dict[HeadMethod | None, str] = {
    "adam": "try more epochs or head='lbfgs'",
    "lbfgs": "the probe's features do not tell its targets apart, so try another probe",
    "calibrated": "the probe's features do not tell its targets apart, so try another probe",
    "keep": "fit one with head='adam' or head='lbfgs'",
}


@dataclass(frozen=True)
class HeadFit:
    """How well a head fits the task's images.

    Attributes:
        loss: weighted mean over the images.
        accuracy: the `measure` of the likelihood: accuracy, share of right labels or R^2.
        constant_loss: weighted mean loss of the best output that is the same for all images.
    """

    loss: float
    accuracy: float
    constant_loss: float


def fit_head(
    head: nn.Linear, features: Features, task: Selection, options: HeadOptions, seed: int, log: LogMetrics
) -> HeadFit:
    """Fits `head` in place to features [N, P] and the task's targets, with the loss of the likelihood.

    Targets of a regression are those that its `standardise` gives.

    The arithmetic is in the dtype of the features: in half precision the steps of Adam would round to nothing.
    Warns when the fitted head is no better than a constant guess: its Fisher would say little about the task.
    """
    return HeadProblem(head, features, task, options).fit(seed, log)


class HeadProblem:
    """A head to be fitted to a task; `fit_head` says how. What both steps need is computed once."""

    def __init__(self, head: nn.Linear, features: Features, task: Selection, options: HeadOptions) -> None:
        self.head, self.features, self.task, self.options = head, features, task, options
        self.likelihood = get_likelihood(task.likelihood)
        self.targets = task.targets.to(features.device)
        self.weights = task.weights.to(features.device)

    def fit(self, seed: int, log: LogMetrics) -> HeadFit:
        """Fits the head in place."""
        head, features, task, options = self.head, self.features, self.task, self.options
        fitted = copy.deepcopy(head).to(features.dtype)
        if options.method == "adam":
            _adam(fitted, features, self.targets, task, self.likelihood, options, seed, log)
        elif options.method != "keep":
            self._newton(fitted, log)
        head.load_state_dict(fitted.state_dict())
        fit = evaluate_head(fitted, features, self.targets, self.weights, self.likelihood)
        if not fit.loss < fit.constant_loss:
            logger.warning(
                "the head is no better than chance: loss %.4f, while a constant guess has %.4f. The embedding of a "
                "head that has not learned the task says little about it; %s",
                fit.loss,
                fit.constant_loss,
                _ADVICE[options.method],
            )
        return fit

    @torch.no_grad()
    def refit(self) -> Refits | None:
        """What heads without each of the groups of images give, by which the standard error knows of the head's part.

        The images of a class that are all in one group stay in, as without them the task would be another one.

        In place of Adam's head, which ends before any optimum, stands the optimum with the penalty of `_early_penalty`.

        Returns:
            None where no head changes: for one that is kept, and where no image can be left out.
        """
        task, options, groups = self.task, self.options, group_of(self.task.chosen)
        present = torch.zeros(int(task.strata.max()) + 1, GROUPS)
        present[task.strata, groups] = 1
        left_out = present.sum(1)[task.strata] > 1
        if options.method == "keep" or not bool(left_out.any()):
            return None
        batches, _, bias = self._convex
        penalty = self._early_penalty() if options.method == "adam" else options.weight_decay
        refits = refit_without_groups(
            batches,
            self._optimum(penalty),
            bias,
            groups,
            left_out,
            self.likelihood,
            penalty,
            count=GROUPS,
            crossed=options.method == "calibrated",
        )
        if refits.outputs is None:
            return refits
        return refits._replace(outputs=refits.outputs.to(self.features.dtype))

    @cached_property
    def _convex(self) -> tuple[Iterable[Batch], Tensor | None, Tensor | None]:
        """Inputs in the space that they span, its basis, and what a head is multiplied with to give the bias."""
        bias = self.head.bias is not None
        batches, basis = in_row_space(_batches(self.features, self.targets, self.weights, bias))
        if not bias:
            return batches, basis, None
        last = torch.zeros(self.head.in_features + 1, dtype=torch.float64, device=self.features.device)
        last[-1] = 1
        return batches, basis, last if basis is None else basis[-1]

    def _optimum(self, penalty: float, progress: Progress | None = None) -> Tensor:
        """The head of least sum_n w_n loss_n + penalty / 2 (|W|^2 + |b|^2), for the inputs of `_convex`."""
        if self._found is None:
            outputs = len(self.head.weight)
            self._found = fit_newton(self._convex[0], outputs, self.likelihood, penalty, progress)
        return self._found

    def _early_penalty(self) -> float:
        """The penalty with which the loss would not fall by making the fitted head longer or shorter.

        With theta the head, that is -<gradient of the loss, theta> / |theta|^2: the weight decay at the optimum, and
        the more the earlier the fit was ended.
        """
        head, pull = copy.deepcopy(self.head).to(self.features.dtype), 0.0
        for block in blocks(self.features):
            outputs = head(self.features[block]).double()
            along = (self.likelihood.score(outputs, self.targets[block]) * outputs).sum(1)
            pull += float(self.weights[block] @ along)
        length = sum(float(part.double().square().sum()) for part in head.parameters())
        return max(pull / length, self.options.weight_decay) if length else self.options.weight_decay

    _found: Tensor | None = None

    @torch.no_grad()
    def _newton(self, head: nn.Linear, log: LogMetrics) -> None:
        """The optimum in float64; logs each step by its number."""
        likelihood, guess = self.likelihood, constant_loss(self.task)

        def progress(loss: float, accuracy: float, step: int) -> None:
            measured = likelihood.measured(accuracy, loss, guess)
            log({"head/loss": loss, f"head/{likelihood.log_name}": measured}, step)

        theta, basis = self._optimum(self.options.weight_decay, progress), self._convex[1]
        theta = theta if basis is None else theta @ basis.T
        head.weight.copy_(theta[:, : head.in_features])
        if head.bias is not None:
            head.bias.copy_(theta[:, -1])


@torch.no_grad()
def evaluate_head(
    head: nn.Linear, features: Features, targets: Tensor, weights: Tensor, likelihood: Likelihood
) -> HeadFit:
    """How well a head fits targets with weights [N] that sum to 1."""
    constant = likelihood.best_constant(targets, weights, len(head.weight))
    totals = weights.new_zeros(3)
    for block in blocks(features):
        outputs, y, w = head(features[block]), targets[block], weights[block]
        totals += torch.stack(
            [
                w @ likelihood.loss(outputs, y).to(w.dtype),
                w @ likelihood.accuracy(outputs, y).to(w.dtype),
                w @ likelihood.loss(constant.expand(len(y), -1), y).to(w.dtype),
            ]
        )
    loss, accuracy, guess = totals.tolist()
    return HeadFit(loss, likelihood.measured(accuracy, loss, guess), guess)


def constant_loss(task: Selection) -> float:
    """Weighted mean loss of the best outputs that are the same for all images."""
    likelihood, targets, weights = get_likelihood(task.likelihood), task.targets, task.weights
    constant = likelihood.best_constant(targets, weights, task.num_classes)
    return float(weights @ likelihood.loss(constant.expand(len(targets), -1), targets).to(weights.dtype))


@torch.enable_grad()
def _adam(
    head: nn.Linear,
    features: Features,
    targets: Tensor,
    task: Selection,
    likelihood: Likelihood,
    options: HeadOptions,
    seed: int,
    log: LogMetrics,
) -> None:
    optimizer = torch.optim.Adam(head.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    guess = constant_loss(task)
    for epoch in range(options.epochs):
        key = int(random_bits(seed, epoch, torch.zeros(1, dtype=torch.int64), 1))
        draws = task.draws(options.num_samples, key).to(features.device)
        total_loss = total_accuracy = 0.0
        for batch in draws.split(options.batch_size):
            outputs = head(features[batch])
            loss = likelihood.loss(outputs, targets[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss += float(loss.detach()) * len(batch)
            total_accuracy += float(likelihood.accuracy(outputs.detach(), targets[batch]).sum())
        mean_loss, accuracy = total_loss / len(draws), total_accuracy / len(draws)
        measured = likelihood.measured(accuracy, mean_loss, guess)
        log({"head/loss": mean_loss, f"head/{likelihood.log_name}": measured}, (epoch + 1) * len(draws))
    optimizer.zero_grad()


def _batches(features: Features, targets: Tensor, weights: Tensor, bias: bool) -> Iterable[Batch]:
    """What `fit_newton` goes through: a list where the features are one block."""
    batches = _Blocks(features, targets, weights, bias)
    return list(batches) if len(list(blocks(features))) == 1 else batches


@dataclass(frozen=True)
class _Blocks:
    """Blocks of features as inputs of a head, with targets and weights; read anew each time they are gone through."""

    features: Features
    targets: Tensor
    weights: Tensor
    bias: bool

    def __iter__(self) -> Iterator[Batch]:
        for block in blocks(self.features):
            rows = self.features[block]
            inputs = with_ones(rows) if self.bias else rows.double()
            yield inputs, self.targets[block], self.weights[block]
