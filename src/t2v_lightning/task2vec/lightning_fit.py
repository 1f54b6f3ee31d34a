"""How Lightning carries phases: one fit, epoch after epoch, batch after batch, resumable after any."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from t2v_lightning.callbacks.checkpoint import checkpoint_for, save_by_the_clock
from t2v_lightning.callbacks.tensorboard import TensorBoardSummary, last_steps
from t2v_lightning.embedding import Embedding
from t2v_lightning.loading.dataset import Batch, IndexedDataset
from t2v_lightning.loading.loader import LoaderOptions, PhaseLoader, Reader
from t2v_lightning.loading.sampler import ShardedSampler
from t2v_lightning.loading.users import dataset_of, loader_options, one_loader
from t2v_lightning.phases import Metrics, Phase, State
from t2v_lightning.task2vec.checkpoint_io import SafeCheckpointIO
from t2v_lightning.task2vec.checkpoint_state import load_phases, read_state, write_state
from t2v_lightning.task2vec.signals import StopSignals
from t2v_lightning.task2vec.trainer_checks import check_trainer

log = logging.getLogger(__name__)


class PhasedFit(LightningModule):
    """Drives phases by the hooks of a Trainer; what they are is left to `prepare` and `assemble`.

    Attributes:
        phases: one after another, each of so many epochs.
        position: whole epochs of the fit so far, and batches of the one at hand.
        processes: how many share the work.
        run_folder: where a fit may put large files; None without a Trainer.
        embedding: the result, once there is one.
        logged: for each logger, what its log had from before the fit was resumed: names with their last steps.
    """

    dataset: IndexedDataset
    reader: Reader

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint leaves out the frozen weights
        self.embedding: Embedding | None = None
        self.phases: list[Phase] = []
        self.position = (0, 0)
        self.processes = 1
        self.run_folder: Path | None = None
        self.logged: list[dict[str, int]] = []
        self._resumed: State | None = None
        self._signals: StopSignals | None = None

    def prepare(self, source: Any, options: LoaderOptions, processes: int = 1) -> None:
        """Takes on a dataset or datamodule, and sets `phases`, `dataset`, `reader` and `processes`."""
        raise NotImplementedError

    def assemble(self) -> Embedding:
        """The embedding, once all phases are finished; all processes take part."""
        raise NotImplementedError

    def settings(self) -> State:
        """All on which the last digits depend beside the Trainer, by the names that a user knows."""
        raise NotImplementedError

    def all_reduce(self, sums: Tensor) -> None:
        """Adds a tensor up over the processes of the fit, in place."""
        if self.processes > 1:
            torch.distributed.all_reduce(sums)

    @property
    def epochs(self) -> int:
        """Number of epochs of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    def phase_at(self, epoch: int) -> tuple[Phase, int]:
        """The phase that an epoch of the fit belongs to, and the epoch within it."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase, epoch
            epoch -= phase.epochs
        raise IndexError(f"the fit has no epoch that far: {epoch} beyond its last phase")

    def phase_loader(self, phase: Phase, epoch: int, rank: int = 0, world_size: int = 1) -> PhaseLoader:
        """Batches of one epoch of a phase, this process's share."""
        sampler = ShardedSampler(
            phase.order(epoch), phase.padding, self.reader.options.batch_size, rank, world_size
        )
        return PhaseLoader(self.reader, sampler, epoch)

    # --- hooks, in the order in which a fit calls them -------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        return [TensorBoardSummary(), _EndOfWorkers(), *checkpoint_for(self.trainer)]

    def setup(self, stage: str) -> None:
        """Takes over the user's data with an indexed loader, and sets the number of epochs."""
        if stage != "fit":
            raise RuntimeError(f"Task2Vec runs through Trainer.fit alone, not through Trainer.{stage}")
        trainer = self.trainer
        if trainer.fit_loop._data_source.instance is self:
            raise TypeError(
                "Trainer.fit was given no data; pass datamodule= (a LightningDataModule) or train_dataloaders= (a "
                "DataLoader)"
            )
        check_trainer(trainer)
        self.run_folder = _local_folder(trainer.default_root_dir)
        self._dtype_before = next(self.parameters()).dtype
        self._user_source = trainer.fit_loop._data_source.instance
        loader = one_loader(trainer.fit_loop._data_source.dataloader())
        source = trainer.datamodule if trainer.datamodule is not None else dataset_of(loader)  # type: ignore[attr-defined]
        self.position, self._resumed, self._signals = (0, 0), None, None
        self.prepare(source, loader_options(loader), trainer.world_size)
        trainer.fit_loop._data_source.instance = self
        if trainer.max_epochs not in (None, -1, self.epochs):
            log.info(
                "the fit has %d epochs: %s",
                self.epochs,
                ", ".join(f"{p.epochs} {p.title}" for p in self.phases),
            )
        trainer.fit_loop.max_epochs = self.epochs
        trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = SafeCheckpointIO()

    def configure_optimizers(self) -> None:
        """None: the phases hold their own."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        write_state(self, self.trainer, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._trainer is None:
            raise RuntimeError(
                "a checkpoint holds an unfinished embedding, not a module: build the module as before and go on "
                "with Trainer.fit(module, ..., ckpt_path=...)"
            )
        self._resumed = read_state(self, self.trainer, checkpoint)

    def on_fit_start(self) -> None:
        """Takes on the state of a checkpoint, now that everything is on its device."""
        resumed = self._resumed is not None
        self.logged = [last_steps(logger) if resumed else {} for logger in self.loggers]
        if self._resumed is None:
            if self.trainer.current_epoch:
                raise RuntimeError(
                    "this Trainer has fitted before and would go on with its epochs; make another one"
                )
            return
        state, self._resumed = self._resumed, None
        self.position = state["position"]
        load_phases(self.phases, state)
        if self.position[0] == self.epochs:  # made at the very end: Lightning has no epoch to run
            self.embedding = self.assemble()

    def train_dataloader(self) -> PhaseLoader:
        phase, epoch = self.phase_at(min(self.current_epoch, self.epochs - 1))
        return self.phase_loader(phase, epoch, self.trainer.global_rank, self.trainer.world_size)

    def on_train_start(self) -> None:
        self._signals = StopSignals(self.trainer)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> int | None:
        """-1, which makes Lightning leave out the rest of the epoch, once the phase has enough."""
        return -1 if self.phase_at(self.current_epoch)[0].done else None

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        images, positions = batch
        phase, _ = self.phase_at(self.current_epoch)
        metrics = phase.step(images.to(next(self.parameters()).dtype), positions)
        self.position = (self.current_epoch, batch_idx + 1)
        self._count_step()
        self.log_dict(metrics, prog_bar=True, logger=False)
        if metrics:
            self.log_numbers(metrics, phase.seen)
        if self._signals is not None:
            self._signals.heed()

    def _count_step(self) -> None:
        """Moves `trainer.global_step` on, by which callbacks go and which Lightning moves with its own optimisers."""
        steps = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        steps.increment_ready()
        steps.increment_completed()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        save_by_the_clock(self.trainer, outputs, batch, batch_idx)

    def log_numbers(self, metrics: Metrics, step: int) -> None:
        """Writes named numbers to every logger at that number of images or draws, but for what it has already."""
        for logger, last in zip(self.loggers, self.logged, strict=True):
            logger.log_metrics({k: v for k, v in metrics.items() if step > last.get(k, -1)}, step)

    def on_train_epoch_end(self) -> None:
        phase, epoch = self.phase_at(self.current_epoch)
        if epoch == phase.epochs - 1:
            phase.finish(self.log_numbers)
            if phase is self.phases[-1]:
                self.embedding = self.assemble()
        self.position = (self.current_epoch + 1, 0)
        if self._signals is not None:
            self._signals.heed()

    def on_train_end(self) -> None:
        if self.embedding is None:
            raise RuntimeError(
                "the fit ended without an embedding: the Trainer was stopped early "
                f"(epoch {self.current_epoch}, should_stop={self.trainer.should_stop})"
            )
        if self._signals is not None:
            self._signals.heed()  # what has come while others did what they do after the last epoch

    def teardown(self, stage: str) -> None:
        self.reader.close()
        trainer = self.trainer
        trainer.fit_loop._data_source.instance = self._user_source
        if type(trainer.strategy.checkpoint_io) is SafeCheckpointIO:
            trainer.strategy.checkpoint_io = TorchCheckpointIO()
        self.to(self._dtype_before)  # which precision="64-true" changed


class _EndOfWorkers(Callback):
    """Ends workers of a fit that an error or a signal breaks off: Lightning tells callbacks of it, never the module."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(pl_module, PhasedFit) and hasattr(pl_module, "reader"):  # not before there are data
            pl_module.reader.close()


def _local_folder(path: str) -> Path | None:
    """None for the address of a store elsewhere."""
    return None if "://" in path else Path(path)
