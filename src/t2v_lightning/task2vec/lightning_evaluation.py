"""How Lightning evaluates a finished embedding's head: `Trainer.validate`, `Trainer.test` and `Trainer.predict`."""

import warnings
from contextlib import ExitStack

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from t2v_lightning.embedding import Embedding
from t2v_lightning.internals import BatchesThroughHooks, data_source
from t2v_lightning.loading.dataset import Batch
from t2v_lightning.loading.loader import PhaseLoader
from t2v_lightning.loading.users import dataset_of, loader_options, one_loader
from t2v_lightning.task2vec.evaluation import Evaluation
from t2v_lightning.task2vec.plan import Plan
from t2v_lightning.task2vec.trainer_checks import check_evaluating_trainer

_MEANT = (
    ".*in eval mode at the start of training.*",
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
)
"""Warnings of Lightning that are of no use here: the probe is in eval mode, and the last one is for its authors."""


class LightningEvaluation(BatchesThroughHooks, LightningModule):
    """Evaluates the fitted head by the hooks of a Trainer.

    Attributes:
        plan: of the fit.
        embedding: the result of the fit, whose `meta["test"]` holds what `Trainer.test` found last.
    """

    plan: Plan
    embedding: Embedding | None
    _evaluation: Evaluation
    _quiet: ExitStack

    def setup_evaluation(self, stage: str) -> None:
        """Replaces the user's loader for validate, test or predict with one that knows its items by position."""
        stage = TrainerFn(stage).value  # for messages, as Lightning gives an enum
        trainer, given = self.trainer, data_source(self.trainer, stage)
        if self.embedding is None:
            raise RuntimeError(f"Trainer.{stage} needs a fitted Task2Vec; call Trainer.fit or embed first")
        if given.instance is self:
            raise TypeError(
                f"Trainer.{stage} was given no data; pass datamodule= (a LightningDataModule) or dataloaders= (a "
                "DataLoader)"
            )
        check_evaluating_trainer(trainer)
        self._dtype_before = next(self.parameters()).dtype
        self._user_source = source = given.instance
        loader = one_loader(given.dataloader(), f"Trainer.{stage}")
        self._evaluation = Evaluation(
            self.plan,
            dataset_of(loader),
            loader_options(loader),
            [source, self] if isinstance(source, LightningDataModule) else [self],
            trainer.world_size,
            labelled=stage != "predict",
        )
        self.batch_hooks = self._evaluation.hooks
        given.instance = self

    def be_quiet(self) -> None:
        """Until `end_quiet`, leaves out what Lightning says of every run and what is meant to be so here."""
        self._quiet = ExitStack()
        self._quiet.enter_context(warnings.catch_warnings())
        for message in _MEANT:
            warnings.filterwarnings("ignore", message=message)

    def end_quiet(self) -> None:
        """Warnings are as before."""
        self._quiet.close()

    def val_dataloader(self) -> PhaseLoader:
        return self._evaluation.loader(self.trainer.global_rank, self.trainer.world_size)

    def test_dataloader(self) -> PhaseLoader:
        return self.val_dataloader()

    def predict_dataloader(self) -> PhaseLoader:
        return self.val_dataloader()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation.update(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation.update(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """What the fitted head says of a batch of B images, in the terms of the dataset.

        Returns:
            `index` int64 [B], the positions of the images in the dataset, as several processes share them. For classes
            `label` int64 [B], in the numbers of the dataset that was embedded, and `probability` float [B, K], whose
            columns are the classes in the order of `embedding.meta["classes"]`. For labels only `probability`, for a
            regression `value` float [B, K] in its own unit.
        """
        return self._evaluation.predictions(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_result("val")

    def on_test_epoch_end(self) -> None:
        found = self._log_result("test")
        assert self.embedding is not None
        self.embedding.meta["test"] = found

    def _log_result(self, prefix: str) -> dict[str, float]:
        found = self._evaluation.result()
        shown = {f"{prefix}/{name}": value for name, value in found.items() if name != "images"}
        self.log_dict(
            shown, sync_dist=self.trainer.world_size > 1
        )  # equal on all processes, as Lightning cannot know
        return found
