"""A training run is the same to the last digit with and without the callback."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging
from small_probe import striped
from torch import Tensor
from tracked_training import QUICK, Somebodys, loader, traces, train

from t2v_lightning import Task2VecCallback


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("method", ["montecarlo", "variational"])
def test_the_run_is_the_same_with_and_without(workers: int, method: str) -> None:
    options = {**QUICK, **({"num_samples": 32, "epochs": 1} if method == "variational" else {})}
    found = []
    for callbacks in ([], [Task2VecCallback(method=method, **options)]):
        module = Somebodys()
        data = loader(num_workers=workers, persistent_workers=workers > 0)
        found.append(traces(module, train(module, list(callbacks), data=data)))
        assert all((c.embedding is not None) for c in callbacks)
    for name in found[0]:
        assert found[0][name] == found[1][name], name
    assert found[0]["passes"] == [8] * 6
    assert found[0]["logged"].keys() == {"loss", "loss_step", "loss_epoch"}


class ByHand(Somebodys):
    """Steps its optimizer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        optimizer.step()
        return loss


RUNS: dict[str, tuple[type[Somebodys], dict[str, Any], Callable[[], list[Callback]]]] = {
    "bfloat16": (Somebodys, {"precision": "bf16-mixed"}, list),
    "clipped": (Somebodys, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}, list),
    "validated at every batch": (Somebodys, {"val_check_interval": 1}, list),
    "by hand": (ByHand, {}, list),
    "averaged weights": (Somebodys, {}, lambda: [StochasticWeightAveraging(0.01, swa_epoch_start=1)]),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_run_of_another_kind_is_the_same_with_and_without(case: str) -> None:
    kind, settings, callbacks = RUNS[case]
    found = []
    for tracker in ([], [Task2VecCallback(**QUICK)]):
        module, validation = kind(), loader(striped(8, double=False))
        trainer = train(module, [*tracker, *callbacks()], 3, loader(), settings, val_dataloaders=validation)
        found.append(traces(module, trainer))
    for name in found[0]:
        assert found[0][name] == found[1][name], name


@pytest.mark.parametrize("joined", ["from the start", "after the resume"])
def test_a_resumed_run_is_the_same_with_and_without(tmp_path: Path, joined: str) -> None:
    """One epoch, a checkpoint, and two epochs more by a new module that only the checkpoint connects to the first."""
    found = []
    for name in ("without", "with"):
        for epochs in (1, 3):
            tracked = name == "with" and (epochs == 3 or joined == "from the start")
            tracker = [Task2VecCallback(**QUICK)] if tracked else []
            checkpoint = ModelCheckpoint(tmp_path / name, save_last=True)
            module = Somebodys()
            resumed = {"ckpt_path": str(tmp_path / name / "last.ckpt")} if epochs == 3 else {}
            trainer = train(module, [*tracker, checkpoint], epochs, loader(), **resumed)
        found.append(traces(module, trainer))
        saved = torch.load(tmp_path / name / "last.ckpt", weights_only=True)
        found[-1]["checkpoint"] = str(
            {key: saved[key] for key in ("state_dict", "optimizer_states", "loops")}
        )
    assert found[0]["passes"] == [8] * 6  # of the two epochs after the resume
    for part in found[0]:
        assert found[0][part] == found[1][part], part
