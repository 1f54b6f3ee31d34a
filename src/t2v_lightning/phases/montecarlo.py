"""Fisher phase: one pass over the images in stratified order, squaring per-sample gradients."""

import logging
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from t2v_lightning.functional.engine.kept import engine_of
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.engine.usage import Include, layer_name
from t2v_lightning.functional.fisher_sums import (
    FisherEstimate,
    add_over_processes,
    add_samples,
    estimate,
    new_sums,
)
from t2v_lightning.functional.head import Refits
from t2v_lightning.functional.inputs import Inputs, describe, device_of
from t2v_lightning.functional.layers.sketch import Sketch
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.loading.selection import Selection
from t2v_lightning.phases.base import AllReduce, LogMetrics, MethodPhase, Metrics, Phase, State, one_process
from t2v_lightning.phases.options import MonteCarloOptions
from t2v_lightning.phases.out_of_memory import Halving
from t2v_lightning.phases.precision import full_precision
from t2v_lightning.phases.tracing import batch_of_one
from t2v_lightning.probes import ProbeNetwork

logger = logging.getLogger(__name__)

LEAST_IMAGES = 64
"""Fewest images after which a standard error may stop the pass."""


class MonteCarloPhase(MethodPhase):
    """Accumulates the filter-wise Fisher information of the probe with its fitted head.

    Args:
        probe: with its fitted head.
        task: which images, with which targets and weights.
        engine: per-sample gradients of the probe, as `fisher_of_filters` gives them.
        options: how. With `target_stderr` the phase is `done` once the relative standard error has fallen to it;
            images come in stratified order, so that those seen by then represent all.
        seed: of the random vectors and of the order.
        all_reduce: adds a float64 tensor up over processes, in place.

    Attributes:
        sums: over the images that this process has seen; see `functional.fisher_sums`.
    """

    title: ClassVar[str] = "fisher"
    uses_refits: ClassVar[bool] = True

    def __init__(
        self,
        probe: ProbeNetwork,
        task: Selection,
        engine: PerSampleFisher,
        options: MonteCarloOptions | None = None,
        seed: int = 0,
        all_reduce: AllReduce = one_process,
    ) -> None:
        self.probe, self.task, self.engine = probe, task, engine
        self.options, self.seed, self.all_reduce = options or MonteCarloOptions(), seed, all_reduce
        self.layers = engine.layers
        self.features = engine.features(probe.backbone)
        self.sums = new_sums(engine.size)
        self.halving = Halving(self.title)

    @classmethod
    def of(
        cls,
        probe: ProbeNetwork,
        task: Selection,
        options: MonteCarloOptions,
        *,
        skip_layers: int,
        seed: int,
        example: Inputs | None,
        probe_digest: str,
        before: Phase | None,
        learn_head: bool,
        all_reduce: AllReduce,
    ) -> "MonteCarloPhase":
        engine = before.engine if isinstance(before, MonteCarloPhase) else None
        if engine is None or engine.form != describe(batch_of_one(probe, example)):
            engine = fisher_of_filters(
                probe, skip_layers, options.include, example, probe_digest, options.token_table
            )
        return cls(probe, task, engine, options, seed, all_reduce)

    def take_refits(self, refits: Refits | None) -> None:
        super().take_refits(refits)
        self.sums = new_sums(self.engine.size, refitted=refits is not None)

    def order(self, epoch: int) -> Tensor:
        return self.task.visiting_order(self.seed)

    def step(self, images: Inputs, positions: Tensor) -> Metrics:
        task, count, device = self.task, len(self.task), device_of(images)
        where = positions.cpu()
        weights = torch.where(where < count, task.weights[where % count], 0.0)
        index = task.chosen[where % count].to(device)
        targets = task.targets[where % count].to(device)
        ratios = crossed = None
        if self.refits is not None:
            ratios, crossed = (
                part if part is None else part[(where % count).to(part.device)] for part in self.refits
            )
        rest = [] if crossed is None else [crossed.to(device)]
        values = torch.cat(self.halving(self._squares, images, index, targets, *rest))
        self.sums = add_samples(self.sums, values, weights, index, ratios)
        target = self.options.target_stderr
        if target is None:
            seen_any = int(self.sums["samples"]) > 0  # else this process's share is only padding
            return self._numbers(estimate(self.sums)) if seen_any else {}
        total = self._total()  # a decision to stop must be the same on all processes
        if int(total.samples) >= LEAST_IMAGES:
            self.done = total.relative_stderr <= target
        return self._numbers(total)

    def finish(self, log: LogMetrics) -> None:
        """Logs the result over the images of all processes; until now each has shown its own."""
        before, numbers = self.seen, self._numbers(self._total())
        if self.seen > before:
            log(numbers, self.seen)

    def result(self) -> dict[str, Any]:
        total, options = self._total(), self.options
        if int(total.samples) != len(self.task) and not self.done:
            raise RuntimeError(
                f"{int(total.samples)} items were counted, but the task has {len(self.task)}; "
                "the embedding would be wrong"
            )
        return {
            "fisher": total.fisher.cpu().numpy(),
            "scale": np.ones(self.engine.size),
            "stderr": total.stderr.cpu().numpy(),
            "group_sums": total.group_sums.cpu().numpy(),
            "group_weights": total.group_weights.cpu().numpy(),
            "meta": {
                "include": options.include,
                **self._token_table(),
                "sampling": options.sampling,
                "passes": options.passes,
                "squares": options.squares,
                "target_stderr": options.target_stderr,
                "samples": int(total.samples),
                "relative_stderr": total.relative_stderr,
            },
        }

    def _token_table(self) -> dict[str, bool]:
        """For `meta`, whether the vector has the table of tokens; empty for a probe without one."""
        tables = [layer_name(name, self.probe.layer_prefix) for name in self.probe.token_tables]
        return {"token_table": any(name in self.engine.layers for name in tables)} if tables else {}

    def _total(self) -> FisherEstimate:
        """The estimate over the images of all processes; all take part."""
        return estimate(add_over_processes(self.sums, self.all_reduce, self.probe.head.weight.device))

    def _numbers(self, found: FisherEstimate) -> Metrics:
        self.seen = int(found.samples)
        return {
            "fisher/norm": float(found.fisher.norm()),
            "fisher/relative_stderr": found.relative_stderr,
        }

    def _squares(
        self, images: Inputs, index: Tensor, targets: Tensor, crossed: Tensor | None = None
    ) -> Tensor:
        """Each image's own Fisher information [N, D], of the distribution that `crossed` gives in place of outputs."""
        kind = get_likelihood(self.task.likelihood)
        of_inputs = kind.targets_of(images)
        with full_precision(index.device):
            return self.engine(
                images,
                lambda outputs: cotangents(
                    outputs if crossed is None else crossed.to(outputs.dtype),
                    kind,
                    self.options.sampling,
                    passes=self.options.passes,
                    seed=self.seed,
                    index=index,
                    targets=targets if of_inputs is None else of_inputs,
                ),
                Sketch.of(self.options.squares, self.options.sampling, self.seed, index),
            )

    def shared_state(self) -> State:
        return {"done": self.done}

    def own_state(self) -> State:
        return {"sums": {name: tensor.cpu() for name, tensor in self.sums.items()}}

    def load_state(self, shared: State, own: State) -> None:
        self.done = shared["done"]
        self.sums = {name: own["sums"][name].to(zeros.dtype) for name, zeros in self.sums.items()}


def fisher_of_filters(
    probe: ProbeNetwork,
    skip_layers: int,
    include: Include,
    example: Inputs | None = None,
    digest: str | None = None,
    token_table: bool | None = None,
) -> PerSampleFisher:
    """Engine for the weights of a probe from stage `skip_layers` on; logs which have no closed form.

    Args:
        probe: any; its head is left out.
        skip_layers: first stage that is measured.
        include: which kinds of weights.
        example: an input without batch dimension to trace the network with; a black image when None.
        digest: of the probe's weights; computed when None. A probe with the same is not traced again.
        token_table: whether tables of tokens are measured; None for those to which the head was not tied.
    """
    head = probe.head.bias is None, _without(probe.head, "_parameters", "out_features")
    left_out = _left_out(probe, token_table)
    own = _without(probe, "_modules", "name", "input_size", "transform", "stages")
    tied = [name for name, parameter in probe.backbone.named_parameters() if parameter is probe.head.weight]
    engine = engine_of(
        probe,
        batch_of_one(probe, example),
        (probe.backbone, head, own, tied),
        digest or probe.digest,
        include=include,
        candidates=frozenset(
            probe.layer_prefix + name for name in probe.stage_parameters(skip_layers) if name not in left_out
        ),
        prefix=probe.layer_prefix,
    )
    for note in engine.prepared.notes:
        logger.info(note)
    layers = ", ".join(layer_name(name, probe.layer_prefix) for name in engine.fallback)
    if engine.slow:
        logger.warning(
            "no closed form for %s, and automatic differentiation goes sample by sample, which is slow, as the network "
            "does not run inside torch.func.vmap: %s",
            layers,
            engine.slow,
        )
    elif engine.fallback:
        logger.info(
            "no closed form for %s; automatic differentiation measures them, at about the cost of another pass",
            layers,
        )
    return engine


def _left_out(probe: ProbeNetwork, token_table: bool | None) -> frozenset[str]:
    """Names of the tables of tokens that are not measured."""
    if token_table:
        return frozenset()
    return frozenset(probe.tied if token_table is None else probe.token_tables)


def _without(module: nn.Module, *names: str) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class of a module, and its attributes apart from these."""
    return type(module), {name: value for name, value in vars(module).items() if name not in names}
