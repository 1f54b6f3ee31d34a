"""All phases of a plan one after another, without a Trainer."""

from collections.abc import Iterable
from contextlib import closing
from typing import Any, Protocol

import torch

from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.inputs import to
from t2v_lightning.loading.dataset import Batch
from t2v_lightning.phases import no_log
from t2v_lightning.task2vec.plan import Plan


class Bar(Protocol):
    """A progress bar."""

    def track(self, title: str, batches: Any) -> Iterable[Any]:
        """Yields the batches and counts them."""

    def note(self, count: int, metrics: dict[str, float]) -> None:
        """Shows the numbers of the last batch."""


def run_plan(plan: Plan, device: torch.device, bar: Bar | None = None, rank: int = 0) -> Embedding:
    """The embedding that a plan leads to.

    Args:
        plan: every one of the processes that it was made for runs its own.
        device: of this process.
        bar: shows the progress; None shows none.
        rank: of this process among them.
    """
    plan.to(device)
    with closing(plan.reader):
        for phase in plan.phases:
            for epoch in range(phase.epochs):
                batches: Iterable[Batch] = plan.loader(phase, epoch, rank, plan.processes)
                for batch in bar.track(phase.name_of(epoch), batches) if bar else batches:
                    images, positions = plan.hooks(batch, device) if plan.hooks else batch
                    metrics = phase.step(to(images, device, plan.probe.head.weight.dtype), positions)
                    if bar:
                        bar.note(len(positions), metrics)
                    if phase.done:
                        break
            phase.finish(no_log)
    return plan.result()
