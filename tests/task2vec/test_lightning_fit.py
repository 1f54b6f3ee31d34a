"""A fit by a Trainer: the same embedding, and an ordinary fit for everything else that takes part in it."""

import warnings
from typing import Any

import numpy as np
import pytest
from pytorch_lightning import Callback, LightningModule, Trainer
from small_fits import QUICK, fit, quietly, relative, task
from small_probe import small_probe
from torch.utils.data import DataLoader

from t2v_lightning import Task2Vec
from t2v_lightning.phases import HeadOptions


@pytest.mark.parametrize("sampling", ["sign", "categorical", "exact", "empirical"])
@pytest.mark.parametrize("head", ["adam", "lbfgs"])
def test_a_trainer_gives_what_embed_gives(sampling: Any, head: str) -> None:
    options = {"sampling": sampling, "head": HeadOptions(head, epochs=1, num_samples=300)}  # type: ignore[arg-type]
    plain = Task2Vec(small_probe(), **options).embed(task(), progress=False, batch_size=7)
    fitted = fit(Task2Vec(small_probe(), **options), task(), precision="64-true")
    assert relative(fitted, plain) < 1e-9
    for name, tolerance in (("stderr", 1e-7), ("group_sums", 1e-5), ("group_weights", 1e-9)):
        np.testing.assert_allclose(getattr(fitted, name), getattr(plain, name), rtol=tolerance)
    for name in set(plain.meta) - {"dataset", "head", "relative_stderr"}:
        assert fitted.meta[name] == plain.meta[name], name


@pytest.mark.parametrize("epochs", [{"max_epochs": 1}, {"max_epochs": 50}, {"max_epochs": -1}, {}], ids=str)
def test_the_number_of_epochs_is_set_by_the_phases_and_nothing_is_said_without_need(
    epochs: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    module = Task2Vec(small_probe(double=False), head=QUICK)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        trainer = quietly(**epochs)
        trainer.fit(module, DataLoader(task(double=False), batch_size=5))
        trainer.validate(module, DataLoader(task(double=False), batch_size=5), verbose=False)
        assert warnings.filters == before
    assert trainer.current_epoch == 2
    assert module.embedding is not None
    assert [str(warning.message) for warning in warned] == []
    own = "t2v_lightning.task2vec.lightning_fit"
    said = [record.getMessage() for record in caplog.records if record.name == own]
    asked = epochs.get("max_epochs", -1)
    assert said == [f"max_epochs={asked} has no effect: the fit has 2 epochs (1 features, 1 fisher)"] * (
        asked > 0
    )


def test_a_callback_of_the_caller_sees_an_ordinary_fit() -> None:
    class Notes(Callback):
        def __init__(self) -> None:
            self.batches: list[int] = []

        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            self.batches.append(len(batch[1]))

    notes = Notes()
    fit(Task2Vec(small_probe(double=False), head=QUICK), task(double=False), callbacks=[notes])
    assert notes.batches == [5, 5, 5, 5, 4] * 2


def test_the_trainer_can_be_used_again_and_the_module_too() -> None:
    items = task(double=False)
    module, trainer = Task2Vec(small_probe(double=False), head=QUICK), quietly()
    loader = DataLoader(items, batch_size=5)
    trainer.fit(module, loader)
    first = module.embedding
    trainer = quietly()
    trainer.fit(module, loader)
    assert module.embedding == first
    assert len(loader) == 5
    assert next(iter(loader))[1].tolist() == [y for _, y in items[:5]]


@pytest.mark.parametrize("call", ["validate", "test", "predict"])
def test_only_fit_makes_sense(call: str) -> None:
    with pytest.raises(Exception, match=r"fit|_step|forward"):
        getattr(quietly(), call)(Task2Vec(small_probe(double=False)), DataLoader(task(double=False)))


def test_a_fit_that_ends_without_embedding_says_why() -> None:
    class Stops(Callback):
        def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
            trainer.should_stop = True

    module = Task2Vec(small_probe(double=False), head=QUICK)
    with pytest.raises(RuntimeError, match=r"embedding|not seen"):
        fit(module, task(double=False), callbacks=[Stops()])
    assert module.embedding is None
