"""Fisher phase: one pass over the images in stratified order, squaring per-sample gradients."""

import logging
from typing import ClassVar

import torch
from torch import Tensor

from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.engine.usage import Include
from t2v_lightning.functional.likelihood import Sampling, check_sampling, cotangents, get_likelihood
from t2v_lightning.loading.selection import Selection
from t2v_lightning.metrics import FilterwiseFisher, FisherEstimate
from t2v_lightning.phases.base import LogMetrics, Metrics, Phase, State
from t2v_lightning.phases.out_of_memory import Halving
from t2v_lightning.phases.precision import full_precision
from t2v_lightning.probes import ProbeNetwork

log_text = logging.getLogger(__name__)

LEAST_IMAGES = 64
"""Images before which a standard error is not trusted to stop the pass."""


class MonteCarloPhase(Phase):
    """Accumulates the filter-wise Fisher information of the probe with its fitted head.

    Args:
        task: which images, with which targets and weights.
        engine: per-sample gradients of the probe, as `fisher_of_filters` gives them.
        accumulator: takes the sums; its size is that of the engine.
        sampling, passes, seed: see `functional.likelihood.cotangents`.
        target_stderr: `done` once the relative standard error has fallen to this; images come in stratified
            order, so that those seen until then stand for all.
    """

    title: ClassVar[str] = "fisher"

    def __init__(
        self,
        task: Selection,
        engine: PerSampleFisher,
        accumulator: FilterwiseFisher,
        sampling: Sampling = "sign",
        passes: int = 1,
        seed: int = 0,
        target_stderr: float | None = None,
    ) -> None:
        check_sampling(sampling, passes)
        self.target_stderr = target_stderr
        self.task, self.engine, self.accumulator = task, engine, accumulator
        self.sampling, self.passes, self.seed = sampling, passes, seed
        self.halving = Halving(self.title)

    def order(self, epoch: int) -> Tensor:
        return self.task.visiting_order(self.seed)

    def step(self, images: Tensor, positions: Tensor) -> Metrics:
        task, count = self.task, len(self.task)
        where = positions.cpu()
        weights = torch.where(where < count, task.weights[where % count], 0.0)
        index = task.chosen[where % count].to(images.device)
        targets = task.targets[where % count].to(images.device)
        values = torch.cat(self.halving(self._squares, images, index, targets))
        self.accumulator.update(values, weights, index)
        if self.target_stderr is None and int(self.accumulator.samples) == 0:  # a share that is padding alone
            return {}
        # a decision to stop must be the same on all processes, so it takes the sums of all
        estimate = self.accumulator.estimate() if self.target_stderr is None else self.accumulator.compute()
        if self.target_stderr is not None and int(estimate.samples) >= LEAST_IMAGES:
            self.done = estimate.relative_stderr <= self.target_stderr
        return self._numbers(estimate)

    def finish(self, log: LogMetrics) -> None:
        """Logs what the images of all processes have come to; until now each has shown its own."""
        before, numbers = self.seen, self._numbers(self.accumulator.compute())
        if self.seen > before:
            log(numbers, self.seen)

    def _numbers(self, estimate: FisherEstimate) -> Metrics:
        self.seen = int(estimate.samples)
        return {
            "fisher/norm": float(estimate.fisher.norm()),
            "fisher/relative_stderr": estimate.relative_stderr,
        }

    def _squares(self, images: Tensor, index: Tensor, targets: Tensor) -> Tensor:
        """Each image's own Fisher information [N, D]."""
        with full_precision(images.device):
            return self.engine(
                images,
                lambda outputs: cotangents(
                    outputs,
                    get_likelihood(self.task.likelihood),
                    self.sampling,
                    passes=self.passes,
                    seed=self.seed,
                    index=index,
                    targets=targets,
                ),
            )

    def shared_state(self) -> State:
        return {"done": self.done}

    def own_state(self) -> State:
        return {"sums": self.accumulator.sums()}

    def load_state(self, shared: State, own: State) -> None:
        self.done = shared["done"]
        self.accumulator.load_sums(own["sums"])


def fisher_of_filters(
    probe: ProbeNetwork, skip_layers: int, include: Include, example: Tensor | None = None
) -> PerSampleFisher:
    """Engine for the weights of a probe from stage `skip_layers` on; logs which have no closed form.

    Args:
        probe: any; its head is left out.
        skip_layers: first stage that is measured.
        include: which kinds of weights.
        example: an image [C, H, W] with which the network is looked at; a black one when None.
    """
    weight = probe.head.weight
    example = weight.new_zeros(1, *probe.input_size) if example is None else example[None].to(weight)
    engine = PerSampleFisher(
        probe,
        example,
        include=include,
        candidates={probe.layer_prefix + name for name in probe.stage_parameters(skip_layers)},
        prefix=probe.layer_prefix,
    )
    if engine.fallback:
        log_text.info(
            "no closed form for %s; automatic differentiation one sample at a time measures them, at about the "
            "cost of another pass",
            ", ".join(engine.fallback),
        )
    return engine
