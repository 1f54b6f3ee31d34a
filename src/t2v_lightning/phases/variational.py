"""Variational phase: noise on the probe's weights, learned together with the head."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.functional.normal_table import NormalTable
from t2v_lightning.functional.random import random_bits
from t2v_lightning.functional.variational import NoisyNetwork
from t2v_lightning.phases.base import LogMetrics, Metrics, Phase
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.selection import Selection

log_text = logging.getLogger(__name__)

DROWNED = 1e6
"""Noise variance over mean square of the weights of a layer, beyond which the training counts as diverged."""


@dataclass(frozen=True)
class VariationalOptions:
    """How the noise is learned.

    Attributes:
        epochs: passes over `num_samples` draws.
        beta: weight of the KL divergence against the cross-entropy.
        noise_lr: learning rate (Adam) of log-variances and log lambda^2.
        head_lr: learning rate (Adam) of the head, and of what `update_norm` adds.
        num_samples: draws with replacement that make an epoch, however many images there are.
        update_norm: learn the affine parameters of the probe's normalisation layers along; the probe keeps its own.

    Raises:
        ValueError: an option is out of range.

    >>> VariationalOptions(epochs=0)
    Traceback (most recent call last):
    ...
    ValueError: epochs=0; it must be above 0
    """

    epochs: int = 2
    beta: float = 1e-7
    noise_lr: float = 1e-2
    head_lr: float = 5e-4
    num_samples: int = 10_000
    update_norm: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "beta", "noise_lr", "num_samples"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}; it must be above 0")
        if not self.head_lr >= 0:
            raise ValueError(f"head_lr={self.head_lr}; it must be 0 (the head stays as it is) or more")


@dataclass(frozen=True)
class VariationalFit:
    """Means over the draws of the last epoch, under noise, and the KL divergence at its end.

    `loss` is cross_entropy + beta * kl; cross_entropy is the negative log-likelihood of the task's likelihood.
    """

    loss: float
    cross_entropy: float
    kl: float
    accuracy: float


class VariationalPhase(Phase):
    """Minimises cross-entropy + beta * KL over noise and head by Adam, a batch of draws a step.

    A position stands for a draw as well as for an image: draw * N + image, with the draws of all epochs numbered
    through. So a draw's noise is a function of seed, draw and layer alone. Gradients are sums over a batch,
    added up over processes and divided by the number of draws; every process then takes the same step.

    Args:
        task: which images, with which targets and weights; draws go by the weights.
        network: the probe with its noise, as `noisy_filters` gives it.
        head: the probe's head, learned along in place.
        options: how.
        seed: of the draws.
        all_reduce: adds a tensor up over processes, in place.

    Attributes:
        fit: what the last epoch came to, once finished.

    Raises:
        FloatingPointError: in `step`, when loss or gradients are not finite, or a layer's noise has drowned its weights.
    """

    title: ClassVar[str] = "variational"

    def __init__(
        self,
        task: Selection,
        network: NoisyNetwork,
        head: nn.Module,
        options: VariationalOptions,
        seed: int,
        all_reduce: Callable[[Tensor], object] = lambda sums: None,
    ) -> None:
        self.task, self.network, self.options, self.seed = task, network, options, seed
        self.all_reduce = all_reduce
        self.epochs = options.epochs
        self.fit: VariationalFit | None = None
        noise = network.noise
        followers = [*noise.affine, *head.parameters()] if options.head_lr else [*noise.affine]
        for parameter in followers:
            parameter.requires_grad_()
        self._learned_from_data = [noise.log_variance, *followers]
        self.optimizer = torch.optim.Adam(
            [
                {"params": [noise.log_variance, noise.log_lambda2], "lr": options.noise_lr},
                {"params": followers, "lr": options.head_lr},
            ]
        )
        self.seen = 0  # draws of all processes so far
        self._sums = torch.zeros(3, dtype=torch.float64)  # cross-entropy, accuracy and draws of this epoch

    @property
    def length(self) -> int:
        return self.options.num_samples

    @property
    def padding(self) -> int:
        return self.epochs * self.length * len(self.task)

    def order(self, epoch: int) -> Tensor:
        key = int(random_bits(self.seed, epoch, torch.ones(1, dtype=torch.int64), 1))
        draws = epoch * self.length + torch.arange(self.length)
        return draws * len(self.task) + self.task.draws(self.length, key)

    def step(self, images: Tensor, positions: Tensor) -> Metrics:
        real = positions.cpu() < self.padding
        images, positions = images[real.to(images.device)], positions.cpu()[real]
        draws = (positions // len(self.task)).to(images.device)
        targets = self.task.targets[positions % len(self.task)].to(images.device)
        sums = self._sums_of_batch(images, draws, targets)
        self.all_reduce(sums)
        gradients, totals = sums[:-3], sums[-3:].cpu()
        cross_entropy, accuracy, weight = totals.tolist()
        drowned = bool(self.network.noise.relative_noise().max() > DROWNED)
        if drowned or not bool(torch.isfinite(sums).all()):
            raise FloatingPointError(self._diagnosis(images, draws, cross_entropy / weight))
        kl = self._adam_step(gradients / weight)
        if self.seen % self.length == 0:
            self._sums.zero_()
        self.seen += round(weight)
        self._sums += totals
        log_variance = self.network.noise.log_variance.detach()
        return {
            "variational/loss": cross_entropy / weight + self.options.beta * kl,
            "variational/cross_entropy": cross_entropy / weight,
            "variational/kl": kl,
            "variational/accuracy": accuracy / weight,
            "variational/log_variance_mean": float(log_variance.mean()),
            "variational/log_variance_std": float(log_variance.std(correction=0)),
        }

    def finish(self, log: LogMetrics) -> None:
        if self.seen != self.epochs * self.length:
            raise RuntimeError(f"{self.seen} draws were counted where there are {self.epochs * self.length}")
        cross_entropy, accuracy, weight = self._sums.tolist()
        with torch.no_grad():
            kl = float(self.network.noise.kl())
        cross_entropy /= weight
        loss = cross_entropy + self.options.beta * kl
        self.fit = VariationalFit(loss, cross_entropy, kl, accuracy / weight)

    @torch.enable_grad()
    def _sums_of_batch(self, images: Tensor, draws: Tensor, targets: Tensor) -> Tensor:
        """Float64 sums over the draws of a batch: gradients, loss, accuracy, draws."""
        if not len(images):  # a process whose share of the last batch is padding alone
            size = sum(p.numel() for p in self._learned_from_data) + 3
            return torch.zeros(size, dtype=torch.float64, device=images.device)
        likelihood = get_likelihood(self.task.likelihood)
        outputs = self.network(images, draws)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        with torch.autocast(images.device.type, enabled=False):
            losses = likelihood.loss(outputs, targets)
            parts = torch.autograd.grad(losses.sum(), self._learned_from_data)
            accuracies = likelihood.accuracy(outputs.detach(), targets)
            numbers = [losses.detach(), accuracies, torch.ones_like(losses)]
            return torch.cat([p.flatten().double() for p in (*parts, torch.stack(numbers).double().sum(1))])

    @torch.enable_grad()
    def _adam_step(self, gradients: Tensor) -> float:
        """One step on mean gradients of the cross-entropy plus those of beta * KL; returns the KL before it."""
        noise = self.network.noise
        kl = noise.kl()
        of_kl = torch.autograd.grad(self.options.beta * kl, [noise.log_variance, noise.log_lambda2])
        sizes = [p.numel() for p in self._learned_from_data]
        for parameter, part in zip(self._learned_from_data, gradients.split(sizes), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
        assert noise.log_variance.grad is not None
        noise.log_variance.grad += of_kl[0]
        noise.log_lambda2.grad = of_kl[1]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return kl.item()

    @torch.no_grad()
    def _diagnosis(self, images: Tensor, draws: Tensor, cross_entropy: float) -> str:
        """Where the noise went wrong, and what to do about it."""
        noise, o = self.network.noise, self.options
        names = list(noise.layers)
        first: list[str] = []

        def observe(name: str, output: Tensor) -> None:
            if not first and not bool(torch.isfinite(output).all()):
                first.append(name)

        if len(images):
            self.network(images, draws, observe)
        relative = noise.relative_noise().nan_to_num(torch.inf)
        largest = names[int(relative.argmax())]
        where = (
            f"layer {first[0]!r} is the first whose noisy output is not finite"
            if first
            else f"the noise is largest in layer {largest!r}"
        )
        return (
            f"the variational training diverged after {self.seen} draws: cross-entropy {cross_entropy:.4g}; {where} "
            f"(its noise has {float(relative[names.index(first[0] if first else largest)]):.3g} times the mean square "
            f"of its weights). Lower noise_lr (now {o.noise_lr:g}), head_lr (now {o.head_lr:g}) or beta (now {o.beta:g})"
        )


def noisy_filters(
    probe: ProbeNetwork, skip_layers: int = 0, seed: int = 0, update_norm: bool = False
) -> NoisyNetwork:
    """The probe with noise on its filters from stage `skip_layers` on; says which weights carry none."""
    network = NoisyNetwork(
        probe,
        probe.head.weight.new_zeros(1, *probe.input_size),
        NormalTable(seed).read,
        candidates={probe.layer_prefix + name for name in probe.stage_parameters(skip_layers)},
        prefix=probe.layer_prefix,
        learn_affine=update_norm,
    )
    if network.noise_free:
        listing = [
            f"{name.removeprefix(probe.layer_prefix)} ({why})" for name, why in network.noise_free.items()
        ]
        more = f" and {len(listing) - 5} more" if len(listing) > 5 else ""
        log_text.info("%d weights carry no noise: %s%s", len(listing), ", ".join(listing[:5]), more)
    return network
