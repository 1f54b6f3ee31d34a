"""Options and callbacks of a Trainer that would change the result are refused, and others are not."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    EMAWeightAveraging,
    ModelPruning,
    SpikeDetection,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from small_fits import QUICK, quietly, task
from small_probe import small_probe
from torch.utils.data import DataLoader

from t2v_lightning import Task2Vec

REFUSED: dict[str, dict[str, Any]] = {
    "max_steps": {"max_steps": 3},
    "limit_train_batches as a share": {"limit_train_batches": 0.5},
    "limit_train_batches as a number": {"limit_train_batches": 2},
    "limit_train_batches of one batch": {"limit_train_batches": 1},
    "overfit_batches": {"overfit_batches": 1},
    "gradient_clip_val": {"gradient_clip_val": 1.0},
    "accumulate_grad_batches": {"accumulate_grad_batches": 2},
}


@pytest.mark.parametrize("case", REFUSED)
def test_trainer_options_that_would_change_the_answer_are_refused(case: str) -> None:
    module = Task2Vec(small_probe(double=False), head=QUICK)
    name = case.split(" ")[0]
    # Lightning itself refuses first what it never allows together with manual optimisation
    with pytest.raises((ValueError, MisconfigurationException), match=rf"Trainer\({name}="):
        quietly(**REFUSED[case]).fit(module, DataLoader(task(double=False), batch_size=5))
    assert module.embedding is None


@pytest.mark.parametrize(
    "options", [{"gradient_clip_val": 0.0}, {"gradient_clip_val": 0}, {"overfit_batches": 0}], ids=str
)
def test_trainer_options_that_are_off_are_accepted(options: dict[str, Any]) -> None:
    module, plain = (Task2Vec(small_probe(double=False), head=QUICK) for _ in range(2))
    quietly(**options).fit(module, DataLoader(task(double=False), batch_size=5))
    quietly().fit(plain, DataLoader(task(double=False), batch_size=5))
    assert module.embedding == plain.embedding


class Unfreeze(BaseFinetuning):
    def freeze_before_training(self, pl_module: LightningModule) -> None:
        self.freeze(pl_module)

    def finetune_function(self, *arguments: Any) -> None:
        pass


CALLBACKS: dict[str, Any] = {
    "WeightAveraging": WeightAveraging,
    "EMAWeightAveraging": EMAWeightAveraging,
    "StochasticWeightAveraging": lambda: StochasticWeightAveraging(1e-2),
    "ModelPruning": lambda: ModelPruning("l1_unstructured", amount=0.5),
    "Unfreeze": Unfreeze,
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_that_change_weights_are_refused(name: str) -> None:
    module = Task2Vec(small_probe(double=False), "variational", head=QUICK)
    with pytest.raises(ValueError, match=f"^{name} does not go with Task2Vec: it changes weights"):
        quietly(callbacks=[CALLBACKS[name]()]).fit(module, DataLoader(task(double=False), batch_size=5))
    assert module.embedding is None


def test_a_callback_that_watches_the_loss_of_each_batch_is_refused() -> None:
    module = Task2Vec(small_probe(double=False), head=QUICK)
    with pytest.raises(ValueError, match=r"^SpikeDetection does not go with Task2Vec: it watches the loss"):
        quietly(callbacks=[SpikeDetection()]).fit(module, DataLoader(task(double=False), batch_size=5))
    assert module.embedding is None


@pytest.mark.parametrize(
    "options",
    [{"max_time": {"seconds": 0}}, {"max_time": {"seconds": 0}, "min_epochs": 1},
     {"callbacks": [Timer(timedelta(seconds=0))]}, {"callbacks": [Timer(timedelta(0), interval="epoch")]}],
    ids=["max_time", "min_epochs", "Timer", "Timer of epochs"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["montecarlo", "variational"])
def test_a_fit_without_time_says_that_it_gives_no_embedding(method: Any, options: dict[str, Any]) -> None:
    module = Task2Vec(small_probe(double=False), method, head=QUICK)
    with pytest.raises(
        RuntimeError, match=r"without an embedding.*max_time.*of \d+ epochs.*nothing was saved"
    ):
        quietly(**options).fit(module, DataLoader(task(double=False), batch_size=5))
    assert module.embedding is None


class StopAfter(Callback):
    """Stands for a Timer that runs out at that batch of the fit."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        self.left -= 1
        trainer.should_stop = trainer.should_stop or self.left == 0


@pytest.mark.parametrize("batches", [2, 5, 7])
@pytest.mark.parametrize("method", ["montecarlo", "variational"])
def test_a_fit_whose_time_runs_out_goes_on_from_where_it_was(
    method: Any, batches: int, tmp_path: Path
) -> None:
    """In the features, at their end, and in the phase after them, of five batches each."""

    def fit(*callbacks: Callback, **more: Any) -> Task2Vec:
        options = {} if method == "montecarlo" else {"epochs": 1, "num_samples": 24}
        module = Task2Vec(small_probe(double=False), method, head=QUICK, **options)
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path, callbacks=list(callbacks),
        )  # fmt: skip
        trainer.fit(module, DataLoader(task(double=False), batch_size=5), **more)
        return module

    with pytest.raises(RuntimeError, match=r"without an embedding.*go on with Trainer\.fit") as told:
        fit(StopAfter(batches))
    path = str(told.value).split('"')[1]
    assert torch.equal(*(torch.from_numpy(m.embedding.fisher) for m in (fit(ckpt_path=path), fit())))  # type: ignore[union-attr]
