"""The test split of a run's datamodule, which is evaluated after the fit."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from t2v_lightning.callbacks.tensorboard import TensorBoardSummary
from t2v_lightning.loading.users import dataset_of, loader_options, one_loader
from t2v_lightning.task2vec.evaluation import Evaluation


class TestSplit(Callback):
    """Finds out before the fit whether there is a test split, and raises if it cannot be evaluated.

    Args:
        summary: learns whether a test follows the fit.
    """

    __test__ = False  # for pytest, which takes it for a test

    def __init__(self, summary: TensorBoardSummary) -> None:
        self.summary = summary

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        loader = one_loader(datamodule.test_dataloader(), "testing")
        self.summary.with_test = len(loader.dataset) > 0  # type: ignore[arg-type]
        if not self.summary.with_test:
            return
        module: Any = pl_module
        try:
            Evaluation(module.plan, dataset_of(loader), loader_options(loader))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{error}. Or leave the test split out by evaluate=false") from error
