"""A development run: one batch of each phase, and an embedding that nobody takes for a real one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from small_fits import QUICK, quietly, task
from small_probe import small_probe
from torch.utils.data import DataLoader, TensorDataset

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.callbacks.checkpoint import BatchCheckpoint
from t2v_lightning.embedding.summary import summarise

METHODS: dict[str, Any] = {
    "montecarlo": {},
    "stopped by its error": {"target_stderr": 0.01},
    "variational": {"method": "variational"},
}


class Batches(Callback):
    def __init__(self) -> None:
        self.sizes: list[list[int]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.sizes.append([])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.sizes[-1].append(len(batch[1]))


@pytest.mark.parametrize("batches", [True, 2])
@pytest.mark.parametrize("method", METHODS)
def test_it_goes_through_every_phase(method: str, batches: Any, tmp_path: Path) -> None:
    """With checkpoints that write nothing, and a test of as many batches."""
    module, seen = Task2Vec(small_probe(double=False), head=QUICK, **METHODS[method]), Batches()
    trainer = Trainer(
        fast_dev_run=batches, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        callbacks=[seen, BatchCheckpoint(tmp_path, every_n_batches=1)],
    )  # fmt: skip
    loader = DataLoader(task(double=False), batch_size=2)  # three classes do not fit into a batch
    trainer.fit(module, loader)
    (found,) = trainer.test(module, loader, verbose=False)
    assert seen.sizes == [[2] * int(batches)] * 2
    assert module.embedding is not None
    meta = module.embedding.meta
    assert (meta["fast_dev_run"], meta["samples"], meta["num_classes"]) == (batches, 2 * batches, 3)
    assert meta["test"]["images"] == 2 * batches
    assert found["test/accuracy"] == pytest.approx(meta["test"]["accuracy"])
    assert f"{int(batches)} batch" in summarise(module.embedding)
    assert not list(tmp_path.iterdir())


def test_it_is_never_saved_over_a_real_embedding(tmp_path: Path) -> None:
    module, loader = (
        Task2Vec(small_probe(double=False), head=QUICK),
        DataLoader(task(double=False), batch_size=5),
    )
    quietly(fast_dev_run=True).fit(module, loader)
    draft = module.embedding
    quietly().fit(module, loader)
    real, path = module.embedding, tmp_path / "task.safetensors"
    assert draft is not None
    assert real is not None
    draft.save(path)
    draft.save(path)
    assert Embedding.load(path) == draft
    real.save(path)
    with pytest.raises(
        FileExistsError, match=r"holds an embedding, and this one was made with fast_dev_run, of 1 "
    ):
        draft.save(path)
    assert Embedding.load(path) == real
    assert (draft.of_dev_run, real.of_dev_run) == (True, False)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_of_labels_and_numbers_too(likelihood: Any) -> None:
    targets = torch.arange(24.0).view(12, 2).remainder(3).clamp_max(1)
    data = DataLoader(TensorDataset(torch.randn(12, 1, 8, 8), targets), batch_size=4)
    module = Task2Vec(small_probe(double=False), likelihood=likelihood, head=QUICK)
    quietly(fast_dev_run=True).fit(module, data)
    assert module.embedding is not None
    assert module.embedding.meta["samples"] == 4
