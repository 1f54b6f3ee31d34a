"""Fits a linear head on stored features."""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from t2v_lightning.functional.head import Batch, fit_newton, with_ones
from t2v_lightning.functional.likelihood import Likelihood, get_likelihood
from t2v_lightning.functional.random import random_bits
from t2v_lightning.loading.selection import Selection
from t2v_lightning.phases.base import LogMetrics
from t2v_lightning.phases.feature_store import Features, blocks
from t2v_lightning.phases.options import HeadMethod, HeadOptions

logger = logging.getLogger(__name__)

_ADVICE: dict[HeadMethod, str] = {
    "adam": "try more epochs or head='lbfgs'",
    "lbfgs": "the probe's features do not tell its targets apart, so try another probe",
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
    likelihood = get_likelihood(task.likelihood)
    targets = task.targets.to(features.device)
    weights = task.weights.to(features.device)
    fitted = copy.deepcopy(head).to(features.dtype)
    if options.method == "adam":
        _adam(fitted, features, targets, task, likelihood, options, seed, log)
    elif options.method == "lbfgs":
        _newton(fitted, features, targets, weights, task, likelihood, options, log)
    head.load_state_dict(fitted.state_dict())
    fit = evaluate_head(fitted, features, targets, weights, likelihood)
    if not fit.loss < fit.constant_loss:
        logger.warning(
            "the head is no better than chance: loss %.4f, while a constant guess has %.4f. The embedding of a head "
            "that has not learned the task says little about it; %s",
            fit.loss,
            fit.constant_loss,
            _ADVICE[options.method],
        )
    return fit


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


@torch.no_grad()
def _newton(
    head: nn.Linear,
    features: Features,
    targets: Tensor,
    weights: Tensor,
    task: Selection,
    likelihood: Likelihood,
    options: HeadOptions,
    log: LogMetrics,
) -> None:
    """Minimises sum_n w_n loss_n + weight_decay / 2 (|W|^2 + |b|^2) in float64; logs each step by its number."""
    guess = constant_loss(task)

    def progress(loss: float, accuracy: float, step: int) -> None:
        measured = likelihood.measured(accuracy, loss, guess)
        log({"head/loss": loss, f"head/{likelihood.log_name}": measured}, step)

    inputs = with_ones if head.bias is not None else Tensor.double
    batches: Iterable[Batch] = Batches(features, targets, weights, inputs)
    if len(list(blocks(features))) == 1:
        batches = list(batches)
    theta = fit_newton(batches, len(head.weight), likelihood, options.weight_decay, progress)
    head.weight.copy_(theta[:, : head.in_features])
    if head.bias is not None:
        head.bias.copy_(theta[:, -1])


class Batches:
    """Blocks of features as inputs of a head, with targets and weights; read anew each time they are gone through."""

    def __init__(
        self, features: Features, targets: Tensor, weights: Tensor, inputs: Callable[[Tensor], Tensor]
    ) -> None:
        self.features, self.targets, self.weights, self.inputs = features, targets, weights, inputs

    def __iter__(self) -> Iterator[Batch]:
        for block in blocks(self.features):
            yield self.inputs(self.features[block]), self.targets[block], self.weights[block]
