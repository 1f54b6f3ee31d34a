"""Fits a linear head on stored features."""

import copy
import itertools
import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
        _lbfgs(fitted, features, targets, weights, task, likelihood, options, log)
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


@torch.enable_grad()
def _lbfgs(
    head: nn.Linear,
    features: Features,
    targets: Tensor,
    weights: Tensor,
    task: Selection,
    likelihood: Likelihood,
    options: HeadOptions,
    log: LogMetrics,
) -> None:
    """Minimises sum_n w_n loss_n + weight_decay / 2 (|W|^2 + |b|^2) in float64; logs each evaluation by its number."""
    whole = list(blocks(features))
    first = features[whole[0]].double()  # usually all there is
    parameters = [torch.zeros_like(p, dtype=torch.float64, requires_grad=True) for p in head.parameters()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=2000,
        max_eval=4000,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    evaluations = itertools.count(1)
    guess = constant_loss(task)
    sums = torch.zeros(2, dtype=torch.float64, device=weights.device)  # loss without the penalty, accuracy

    def loss_of(x: Tensor, block: slice) -> Tensor:
        outputs, y, w = nn.functional.linear(x, *parameters), targets[block], weights[block]
        loss = w @ likelihood.loss(outputs, y)
        sums.add_(torch.stack([loss.detach(), w @ likelihood.accuracy(outputs.detach(), y).to(w.dtype)]))
        return loss

    def closure() -> Tensor:
        optimizer.zero_grad()
        sums.zero_()
        loss = 0.5 * options.weight_decay * sum(p.square().sum() for p in parameters)
        for block in whole[1:]:
            part = loss_of(features[block].double(), block)
            part.backward()
            loss = loss + part.detach()
        loss = loss + loss_of(first, whole[0])
        loss.backward()
        mean_loss, accuracy = sums.tolist()
        measured = likelihood.measured(accuracy, mean_loss, guess)
        log({"head/loss": mean_loss, f"head/{likelihood.log_name}": measured}, next(evaluations))
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        for parameter, fitted in zip(head.parameters(), parameters, strict=True):
            parameter.copy_(fitted)
