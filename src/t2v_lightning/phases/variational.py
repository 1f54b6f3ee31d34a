"""Variational phase: noise on the probe's weights, learned together with the head."""

import logging
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from t2v_lightning.functional.inputs import Inputs, device_of, take
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.functional.noise.network import NoisyNetwork
from t2v_lightning.functional.noise.normal_table import NormalTable
from t2v_lightning.functional.random import random_bits
from t2v_lightning.loading.selection import Selection
from t2v_lightning.phases.base import AllReduce, LogMetrics, MethodPhase, Metrics, Phase, State, one_process
from t2v_lightning.phases.head import constant_loss
from t2v_lightning.phases.options import VariationalOptions
from t2v_lightning.phases.out_of_memory import Halving
from t2v_lightning.phases.tracing import batch_of_one
from t2v_lightning.probes import ProbeNetwork

logger = logging.getLogger(__name__)

DROWNED = 1e6
"""Noise variance over mean square of the weights of a layer at which the training counts as diverged."""

LOST = 100.0
"""Times the loss of a constant guess: the mean loss of the last epoch at which the training counts as diverged."""


@dataclass(frozen=True)
class VariationalFit:
    """Means over the draws of the last epoch, under noise, and the KL divergence at its end.

    `loss` is cross_entropy + beta * kl, where cross_entropy stands for the negative log-likelihood; `accuracy` is the
    `measure` of the likelihood.
    """

    loss: float
    cross_entropy: float
    kl: float
    accuracy: float


class VariationalPhase(MethodPhase):
    """Minimises cross-entropy + beta * KL over noise and head, a step a batch of draws.

    The head takes steps of Adam, the noise natural-gradient steps down the Fisher information of the batch under its
    noise, with signs at random (see `functional.likelihood.cotangents` and `NoiseParameters.natural_step`). The step
    that brings the draws to n has the rate 2 b / (n + b) for a batch of b, so that the precision is the geometric mean
    over all batches so far, with the numbers of their draws for weights. With `init="reference"` the noise takes steps
    of Adam down the gradient.

    A position stands for a draw as well as for an image, draw * N + image, where the draws of all epochs are
    numbered consecutively. So the noise of a draw is a function of seed, epoch, place in the epoch and layer only.
    Gradients are sums over a batch, added up over processes and divided by the number of draws: every process
    takes the same step, that of one process with a batch as large as all of theirs.

    Args:
        probe: its head is learned too, in place, if `learn_head` says so.
        task: which images, with which targets and weights; images are drawn in proportion to the weights.
        network: the probe with its noise, as `noisy_filters` gives it.
        options: how.
        seed: of the draws.
        learn_head: whether the head is learned too.
        all_reduce: adds a float64 tensor up over processes, in place.

    Attributes:
        fit: the results of the last epoch, once finished.
        seen: draws of all processes so far.
        optimizer: Adam, which holds affine parameters and the head, and before them log-variances and log lambda^2 with
            `init="reference"`.

    Raises:
        FloatingPointError: in `step`, when loss or gradients are not finite, or the noise of a layer dwarfs its
            weights; in `finish`, when the loss is far above that of a constant guess.
    """

    title: ClassVar[str] = "variational"

    def __init__(
        self,
        probe: ProbeNetwork,
        task: Selection,
        network: NoisyNetwork,
        options: VariationalOptions,
        seed: int,
        learn_head: bool = True,
        all_reduce: AllReduce = one_process,
    ) -> None:
        self.probe, self.task, self.network = probe, task, network
        self.options, self.seed = options, seed
        self.all_reduce = all_reduce
        self.epochs, self.features = options.epochs, probe.features
        self.learned, self.layers = network.noise, network.noise.layers
        self.fit: VariationalFit | None = None
        self.seen = 0
        self._guess = constant_loss(task)
        self.halving = Halving(self.title)
        noise = network.noise
        followers = [*noise.affine, *(probe.head.parameters() if learn_head else ())]
        for parameter in followers:
            parameter.requires_grad_()
        self._learned_from_data = [noise.log_variance, *followers]
        self._natural = options.init == "fisher"
        of_adam = [] if self._natural else [noise.log_variance, noise.log_lambda2]
        self.optimizer = torch.optim.Adam(
            [
                {"params": of_adam, "lr": options.noise_lr},
                {"params": followers, "lr": options.head_lr},
            ]
        )
        self._totals = torch.zeros(3, dtype=torch.float64)  # loss, accuracy and draws of this epoch

    @classmethod
    def of(
        cls,
        probe: ProbeNetwork,
        task: Selection,
        options: VariationalOptions,
        *,
        skip_layers: int,
        seed: int,
        example: Inputs | None,
        probe_digest: str,
        before: Phase | None,
        learn_head: bool,
        all_reduce: AllReduce,
    ) -> "VariationalPhase":
        network = noisy_filters(probe, skip_layers, seed, options.update_norm, example)
        return cls(probe, task, network, options, seed, learn_head, all_reduce)

    def learned_weights(self) -> dict[str, Tensor]:
        names = ((name, self.network.learned(value)) for name, value in self.probe.named_parameters())
        affine = [*self.network.noise.affine]
        return {name: value for name, value in names if any(value is one for one in affine)}

    @property
    def length(self) -> int:
        return self.options.draws

    @property
    def padding(self) -> int:
        return self.epochs * self.length * len(self.task)

    def order(self, epoch: int) -> Tensor:
        key = int(random_bits(self.seed, epoch, torch.ones(1, dtype=torch.int64), 1))
        draws = epoch * self.length + torch.arange(self.length)
        return draws * len(self.task) + self.task.draws(self.length, key)

    def step(self, images: Inputs, positions: Tensor) -> Metrics:
        device, real = device_of(images), positions.cpu() < self.padding
        images, positions = take(images, real.to(device)), positions.cpu()[real]
        draws = (positions // len(self.task)).to(device)
        targets = self.task.targets[positions % len(self.task)].to(device)
        parts = self.halving(self._sums, images, draws, targets)
        sums = torch.stack(parts).sum(0) if parts else self._no_sums(device)
        self.all_reduce(sums)
        totals = sums[-3:].cpu()
        cross_entropy, accuracy = (totals[:2] / totals[2]).tolist()
        likelihood, noise = get_likelihood(self.task.likelihood), self.network.noise
        accuracy = likelihood.measured(accuracy, cross_entropy, self._guess)
        if not bool(torch.isfinite(sums).all()) or bool(noise.relative_noise().max() > DROWNED):
            raise FloatingPointError(self._diagnosis(cross_entropy, images, draws))
        beta_kl = self.options.beta * self._learn(sums[:-3] / sums[-1], round(float(totals[2])))
        if self.seen % self.length == 0:
            self._totals.zero_()
        self._totals += totals
        self.seen += round(float(totals[2]))
        log_variance = noise.log_variance.detach()
        return {
            "variational/loss": cross_entropy + beta_kl,
            "variational/cross_entropy": cross_entropy,
            "variational/beta_kl": beta_kl,
            f"variational/{likelihood.log_name}": accuracy,
            "variational/log_variance_mean": float(log_variance.mean()),
            "variational/log_variance_std": float(log_variance.std(correction=0)),
        }

    def finish(self, log: LogMetrics) -> None:
        if self.seen != self.epochs * self.length:
            raise RuntimeError(f"{self.seen} draws were counted, but there are {self.epochs * self.length}")
        cross_entropy, accuracy = (self._totals[:2] / self._totals[2]).tolist()
        guess = self._guess
        accuracy = get_likelihood(self.task.likelihood).measured(accuracy, cross_entropy, guess)
        if cross_entropy > LOST * guess > 0:
            raise FloatingPointError(self._diagnosis(cross_entropy))
        if not cross_entropy < guess:
            logger.warning(
                "under its noise the network is no better than chance: cross-entropy %.4f in the last epoch, while a "
                "constant guess has %.4f, so that the embedding says little about the task. Try more epochs, or a "
                "lower head_lr (now %g) or beta (now %g)",
                cross_entropy,
                guess,
                self.options.head_lr,
                self.options.beta,
            )
        with torch.no_grad():
            kl = float(self.network.noise.kl())
        self.fit = VariationalFit(cross_entropy + self.options.beta * kl, cross_entropy, kl, accuracy)

    def result(self) -> dict[str, Any]:
        assert self.fit is not None
        noise = self.network.noise
        return {
            "fisher": noise.fisher().cpu().numpy(),
            "scale": noise.scale().cpu().numpy(),
            "meta": {
                "include": "weights",
                "variational": asdict(self.options) | {"num_samples": self.length} | asdict(self.fit),
            },
        }

    def shared_state(self) -> State:
        return {
            "noise": self.network.noise.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "totals": self._totals,
            "seen": self.seen,
            "fit": None if self.fit is None else asdict(self.fit),
        }

    def load_state(self, shared: State, own: State) -> None:
        """The head, even if it is learned here, is restored by the features phase."""
        self.network.noise.load_state_dict(shared["noise"])
        self.optimizer.load_state_dict(shared["optimizer"])
        self._totals, self.seen = shared["totals"].clone(), shared["seen"]
        self.fit = None if shared["fit"] is None else VariationalFit(**shared["fit"])

    @torch.enable_grad()
    def _sums(self, images: Inputs, draws: Tensor, targets: Tensor) -> Tensor:
        """Float64 sums over a batch: gradients of the loss, then loss, accuracy and number of draws."""
        likelihood = get_likelihood(self.task.likelihood)
        outputs = self.network(images, draws, squared=self._natural)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        with torch.autocast(draws.device.type, enabled=False):
            losses = likelihood.loss(outputs, targets)
            if self._natural:
                of_noise, of_data = self._learned_from_data[:1], self._learned_from_data[1:]
                gradients = _gradients(losses.sum(), of_data, retain_graph=True) if of_data else ()
                (vectors,) = cotangents(outputs.detach(), likelihood, "sign", seed=self.seed, index=draws)
                gradients = (*_gradients((outputs * vectors).sum(), of_noise), *gradients)
            else:
                gradients = _gradients(losses.sum(), self._learned_from_data)
            accuracies = likelihood.accuracy(outputs.detach(), targets)
        numbers = torch.stack([losses.detach(), accuracies, torch.ones_like(losses)]).double().sum(1)
        return torch.cat([part.flatten().double() for part in (*gradients, numbers)])

    def _no_sums(self, device: torch.device) -> Tensor:
        """The sums of a process whose share of the last batch is only padding."""
        size = sum(p.numel() for p in self._learned_from_data) + 3
        return torch.zeros(size, dtype=torch.float64, device=device)

    @torch.enable_grad()
    def _learn(self, gradients: Tensor, draws: int) -> float:
        """One step down mean gradients of the loss plus those of beta * KL; returns the KL before it."""
        noise, beta = self.network.noise, self.options.beta
        kl = noise.kl()
        of_noise, *parts = gradients.split([p.numel() for p in self._learned_from_data])
        for parameter, part in zip(self._learned_from_data[1:], parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
        if self._natural:
            noise.natural_step(of_noise, beta, rate=2 * draws / (self.seen + 2 * draws))
        else:
            of_variance, noise.log_lambda2.grad = torch.autograd.grad(
                beta * kl, [noise.log_variance, noise.log_lambda2]
            )
            noise.log_variance.grad = of_noise.to(of_variance.dtype) + of_variance
        self.optimizer.step()
        self.optimizer.zero_grad()
        return kl.item()

    @torch.no_grad()
    def _diagnosis(
        self, cross_entropy: float, images: Inputs | None = None, draws: Tensor | None = None
    ) -> str:
        """Which layer diverged, found with these images if they are given, and what to do about it."""
        relative = self.network.noise.relative_noise().nan_to_num(torch.inf, torch.inf)
        names = list(self.network.noise.layers)
        layer, what = names[int(relative.argmax())], "bears the most noise"
        broken: list[str] = []

        def observe(name: str, output: Tensor) -> None:
            if not bool(torch.isfinite(output).all()):
                broken.append(name)

        if images is not None and draws is not None and len(draws):
            self.network(images, draws, observe)
        if broken:
            layer, what = broken[0], "is the first with an output that is not finite"
        o, ratio = self.options, float(relative[names.index(layer)])
        noise_lr = "" if self._natural else f"noise_lr (now {o.noise_lr:g}), "
        return (
            f"the variational training diverged after {self.seen} draws, with cross-entropy {cross_entropy:.4g}: "
            f"layer {layer!r} {what}; its noise has {ratio:.3g} times the mean square of its weights. Lower "
            f"{noise_lr}head_lr (now {o.head_lr:g}) or beta (now {o.beta:g})"
        )


def _gradients(loss: Tensor, parameters: list[Tensor], retain_graph: bool = False) -> tuple[Tensor, ...]:
    """Gradients of a loss; zeros for a parameter that it does not depend on."""
    return torch.autograd.grad(
        loss, parameters, retain_graph=retain_graph, allow_unused=True, materialize_grads=True
    )


def noisy_filters(
    probe: ProbeNetwork,
    skip_layers: int = 0,
    seed: int = 0,
    update_norm: bool = False,
    example: Inputs | None = None,
) -> NoisyNetwork:
    """The probe with noise on its filters from stage `skip_layers` on; says which weights bear none.

    Args:
        probe: in float32 or float64.
        skip_layers: first stage that bears noise.
        seed: of the noise.
        update_norm: also learn the affine parameters of normalisation layers.
        example: an input without batch dimension to trace the network with; a black image when None.

    Raises:
        ValueError: a probe in half precision, or one that `NoisyNetwork` does not take.
    """
    weight = probe.head.weight
    if weight.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"the probe is in {str(weight.dtype).removeprefix('torch.')}, in which steps of the learning round to "
            "nothing; call probe.float(), and choose precision='bf16-mixed' for speed"
        )
    network = NoisyNetwork(
        probe,
        batch_of_one(probe, example),
        NormalTable(seed).read,
        candidates={probe.layer_prefix + name for name in probe.stage_parameters(skip_layers)},
        prefix=probe.layer_prefix,
        learn_affine=update_norm,
    )
    free = [f"{name.removeprefix(probe.layer_prefix)} ({why})" for name, why in network.noise_free.items()]
    if free:
        more = f" and {len(free) - 5} more weights" if len(free) > 5 else ""
        logger.info("no noise on %s%s", ", ".join(free[:5]), more)
    return network
