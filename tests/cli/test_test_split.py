"""The test split of a run, and the folder of a development run."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from small_fits import QUICK, Plain, quietly, task
from small_probe import small_probe
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.callbacks.tensorboard import TensorBoardSummary
from t2v_lightning.cli.run_folder import (
    FolderTaken,
    check_free,
    deciding_settings,
    is_finished,
    note_settings,
)
from t2v_lightning.cli.test_split import TestSplit
from t2v_lightning.embedding.run_folder import EMBEDDING_FILE


class WithTest(Plain):
    def __init__(self, test: Any) -> None:
        super().__init__(task(double=False))
        self.test = test

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test)


def test_a_split_that_cannot_be_evaluated_is_an_error_before_the_fit() -> None:
    image, _ = task(double=False)[0]
    summary, module = TensorBoardSummary(), Task2Vec(small_probe(double=False), head=QUICK)
    with pytest.raises(
        ValueError, match=r"has not seen: 9\. .* Or leave the test split out by evaluate=false"
    ):
        quietly(callbacks=[TestSplit(summary)]).fit(module, datamodule=WithTest([(image, 0), (image, 9)]))
    assert module.embedding is None


@pytest.mark.parametrize("size", [0, 5])
def test_a_split_without_images_is_none(size: int) -> None:
    summary, module = TensorBoardSummary(), Task2Vec(small_probe(double=False), head=QUICK)
    data = WithTest(task(double=False)[:size])
    quietly(callbacks=[TestSplit(summary)]).fit(module, datamodule=data)
    assert summary.with_test == (size > 0)


def settings(**trainer: Any) -> DictConfig:
    return OmegaConf.create({"dataset": {"name": "digits"}, "trainer": trainer, "overwrite": False})


def test_a_development_run_replaces_no_embedding_and_any_run_replaces_its(tmp_path: Path) -> None:
    real, draft = settings(), settings(fast_dev_run=True)
    assert deciding_settings(draft) == {**deciding_settings(real), "fast_dev_run": 1}
    Embedding([1.0], [1]).save(tmp_path / EMBEDDING_FILE)
    note_settings(tmp_path, real)
    assert is_finished(tmp_path, real)
    draft.overwrite = True
    with pytest.raises(FolderTaken, match=r"fast_dev_run was None and is 1\): choose another folder$"):
        check_free(tmp_path, draft)
    (tmp_path / EMBEDDING_FILE).unlink()
    Embedding([1.0], [1], meta={"fast_dev_run": 1}).save(tmp_path / EMBEDDING_FILE)
    note_settings(tmp_path, draft)
    assert not is_finished(tmp_path, draft)
    for config in (real, draft):
        check_free(tmp_path, config)
