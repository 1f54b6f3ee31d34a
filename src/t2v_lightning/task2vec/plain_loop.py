"""All phases of a module one after another, without a Trainer."""

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from t2v_lightning.callbacks.progress import EmbedProgress
from t2v_lightning.embedding import Embedding
from t2v_lightning.loading.dataset import Batch
from t2v_lightning.phases import no_log
from t2v_lightning.task2vec.assembly import assemble

if TYPE_CHECKING:
    from t2v_lightning.task2vec.module import Task2Vec


def run_phases(
    module: "Task2Vec", device: torch.device, bar: EmbedProgress | None = None, rank: int = 0
) -> Embedding:
    """The embedding of the task that the module is prepared for.

    Args:
        module: after its `prepare`; every one of the processes that it was prepared for runs this.
        device: of this process.
        bar: shows how far it is.
        rank: of this process among them.
    """
    module.to(device)
    with closing(module.reader):
        for phase in module.phases:
            for epoch in range(phase.epochs):
                batches: Iterable[Batch] = module.phase_loader(phase, epoch, rank, module.processes)
                for images, positions in bar.track(phase.name_of(epoch), batches) if bar else batches:
                    metrics = phase.step(images.to(device, module.probe.head.weight.dtype), positions)
                    if bar:
                        bar.note(len(positions), metrics)
                    if phase.done:
                        break
            phase.finish(no_log)
    module.embedding = assemble(module)
    return module.embedding
