"""How Lightning runs a plan: one fit, epoch after epoch, batch after batch, resumable after any."""

import logging
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer

from t2v_lightning.callbacks.checkpoint import checkpoint_for, save_by_the_clock, save_last
from t2v_lightning.callbacks.tensorboard import TensorBoardSummary, last_steps, note_hyperparameters
from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.inputs import to
from t2v_lightning.internals import count_step, data_source
from t2v_lightning.loading.dataset import Batch
from t2v_lightning.loading.loader import LoaderOptions, PhaseLoader
from t2v_lightning.loading.users import dataset_of, loader_options, one_loader
from t2v_lightning.phases import Metrics, State
from t2v_lightning.task2vec.checkpoint_io import SafeCheckpointIO
from t2v_lightning.task2vec.checkpoint_state import load_phases, read_state, write_state
from t2v_lightning.task2vec.lightning_evaluation import LightningEvaluation
from t2v_lightning.task2vec.options import EmbeddingOptions
from t2v_lightning.task2vec.plan import Plan
from t2v_lightning.task2vec.signals import StopSignals
from t2v_lightning.task2vec.trainer_checks import check_trainer

log = logging.getLogger(__name__)


class LightningFit(LightningEvaluation):
    """Runs a plan by the hooks of a Trainer; `prepare` makes it.

    Attributes:
        plan: of the fit, from `setup` on.
        position: whole epochs of the fit so far, and batches of the current one.
        run_folder: where a fit may put large files; None without a Trainer.
        embedding: the result, once there is one.
        logged: for each logger, what its log had before the fit was resumed: names with their last steps.
    """

    options: EmbeddingOptions

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint leaves out the frozen weights
        self.embedding: Embedding | None = None
        self.position = (0, 0)
        self.run_folder: Path | None = None
        self.logged: list[dict[str, int]] = []
        self._resumed: State | None = None
        self._signals: StopSignals | None = None

    def prepare(
        self,
        source: Any,
        loading: LoaderOptions,
        processes: int = 1,
        *,
        dev_batches: int = 0,
        progress: bool = False,
    ) -> Plan:
        """The plan for a dataset or datamodule that this many processes share; `dev_batches` as for a `Plan`."""
        raise NotImplementedError

    # --- hooks, in the order in which a fit calls them -------------------------------------------------

    @LightningEvaluation.trainer.setter  # type: ignore[attr-defined, untyped-decorator]
    def trainer(self, trainer: Trainer | None) -> None:
        """Takes the Trainer, which would warn that nobody has set the number of epochs that `setup` sets."""
        LightningEvaluation.trainer.fset(self, trainer)  # type: ignore[attr-defined]
        if trainer is not None and trainer.max_epochs is None:
            trainer.fit_loop.max_epochs = -1

    def configure_callbacks(self) -> list[Callback]:
        fitting = self.trainer.state.fn == "fit"
        own: list[Callback] = [TensorBoardSummary(), _EndOfWorkers()] if fitting else [_EndOfWorkers()]
        given = {type(callback) for callback in self.trainer.callbacks}
        return [
            *(callback for callback in own if type(callback) not in given),
            *(checkpoint_for(self.trainer) if fitting else ()),
        ]

    def setup(self, stage: str) -> None:
        """Replaces the user's loader with one that knows its items by position, and sets the number of epochs."""
        if stage != "fit":
            self.setup_evaluation(stage)
            self.be_quiet()
            return
        trainer, given = self.trainer, data_source(self.trainer, "fit")
        if given.instance is self:
            raise TypeError(
                "Trainer.fit was given no data; pass datamodule= (a LightningDataModule) or train_dataloaders= (a "
                "DataLoader)"
            )
        check_trainer(trainer, learns=self.options.own.learns)
        self.run_folder = _local_folder(trainer.default_root_dir)
        self._dtype_before = next(self.parameters()).dtype
        self._user_source = given.instance
        loader = one_loader(given.dataloader())
        source = trainer.datamodule if trainer.datamodule is not None else dataset_of(loader)
        self.position, self._resumed, self._signals = (0, 0), None, None
        dev_run = int(trainer.fast_dev_run)  # which sets max_epochs
        self.plan = plan = self.prepare(
            source,
            loader_options(loader),
            trainer.world_size,
            dev_batches=dev_run,
            progress=trainer.progress_bar_callback is not None and trainer.is_global_zero,
        )
        if self.options.own.learns and "mixed" in str(trainer.precision):
            plan.mixed = str(trainer.precision)
        self.batch_hooks = plan.hooks
        self.learned = plan.learned  # a part of the module, which is moved and shared as a whole
        given.instance = self
        if trainer.max_epochs not in (-1, plan.epochs) and not dev_run and trainer.is_global_zero:
            log.warning(
                "max_epochs=%s has no effect: the fit has %d epochs (%s)",
                trainer.max_epochs,
                plan.epochs,
                ", ".join(f"{p.epochs} {p.title}" for p in plan.phases),
            )
        trainer.fit_loop.max_epochs = plan.epochs
        trainer.fit_loop.epoch_loop.max_steps = -1  # which fast_dev_run sets
        self._validation_limit = trainer.limit_val_batches
        trainer.limit_val_batches = 0  # there is nothing to validate before the head is fitted
        trainer.reload_dataloaders_every_n_epochs = 1
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = SafeCheckpointIO()
        self.be_quiet()

    def configure_optimizers(self) -> list[Any]:
        """None for Lightning: the phases hold their own."""
        return []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        write_state(self.plan, self.position, self.trainer, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.embedding is not None:
            raise RuntimeError(
                "a checkpoint holds an unfinished embedding, and this module has a finished one: call Trainer.test and "
                "the like with the module and without ckpt_path"
            )
        if not hasattr(self, "plan"):  # no fit has set it up
            raise RuntimeError(
                "a checkpoint holds an unfinished embedding, not a module: build the module as before and continue "
                "with Trainer.fit(module, ..., ckpt_path=...)"
            )
        self._resumed = read_state(self.plan, self.trainer, checkpoint)

    def on_fit_start(self) -> None:
        """Restores the state of a checkpoint, now that everything is on its device."""
        resumed = self._resumed is not None
        meta = self.plan.meta
        own = {"probe": self.plan.probe.name, **self.plan.options.named()}
        task = meta.get("task_name") or meta["dataset"]
        note_hyperparameters(self.loggers, {**self.hparams, "task2vec": own, "task": task})
        self.logged = [last_steps(logger) if resumed else {} for logger in self.loggers]
        if self._resumed is None:
            if self.trainer.current_epoch:
                raise RuntimeError(
                    "this Trainer has fitted before and would continue its epochs; create a new one"
                )
            return
        state, self._resumed = self._resumed, None
        self.position = state["position"]
        load_phases(self.plan.phases, state)
        if self.position[0] == self.plan.epochs:  # saved at the very end: Lightning has no epoch to run
            self.embedding = self.plan.result()

    def train_dataloader(self) -> PhaseLoader:
        phase, epoch = self.plan.phase_at(min(self.current_epoch, self.plan.epochs - 1))
        return self.plan.loader(phase, epoch, self.trainer.global_rank, self.trainer.world_size)

    def on_train_start(self) -> None:
        self._signals = StopSignals(self.trainer)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> int | None:
        """-1, which makes Lightning skip the rest of the epoch, once the phase has enough."""
        return -1 if self.plan.phase_at(self.current_epoch)[0].done else None

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        images, positions = batch
        phase, _ = self.plan.phase_at(self.current_epoch)
        metrics = phase.step(to(images, dtype=next(self.parameters()).dtype), positions)
        self.position = (self.current_epoch, batch_idx + 1)
        count_step(self.trainer)
        self.log_dict(metrics, prog_bar=True, logger=False)
        if metrics:
            self.log_numbers(metrics, phase.seen)
        self._leave_if_stopped()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        save_by_the_clock(self.trainer, outputs, batch, batch_idx)

    def log_numbers(self, metrics: Metrics, step: int) -> None:
        """Writes named numbers to every logger at that number of images or draws, except what it already has."""
        for logger, last in zip(self.loggers, self.logged, strict=True):
            logger.log_metrics({k: v for k, v in metrics.items() if step > last.get(k, -1)}, step)

    def on_train_epoch_end(self) -> None:
        phase, epoch = self.plan.phase_at(self.current_epoch)
        if (
            self.trainer.should_stop
            and not phase.done
            and self.position[1] < self.trainer.num_training_batches
        ):
            self._raise_stopped()
        if epoch == phase.epochs - 1:
            phase.finish(self.log_numbers)
            if phase is self.plan.phases[-1]:
                self.embedding = self.plan.result()
        self.position = (self.current_epoch + 1, 0)
        self._leave_if_stopped()

    def on_train_end(self) -> None:
        self._leave_if_stopped()  # a signal that came while callbacks ended

    def on_fit_end(self) -> None:
        """Called also where Lightning leaves out the whole fit, as with no time left."""
        if self.embedding is None:
            self._raise_stopped()

    def teardown(self, stage: str) -> None:
        trainer = self.trainer
        self.end_reading()
        data_source(trainer, stage).instance = self._user_source
        if type(trainer.strategy.checkpoint_io) is SafeCheckpointIO:
            trainer.strategy.checkpoint_io = TorchCheckpointIO()
        self.to(self._dtype_before)  # which precision="64-true" changed

    def end_reading(self) -> None:
        """Ends the workers of a fit or an evaluation, however it ended, and gives the Trainer its settings back."""
        self.batch_hooks = None
        self.end_quiet()
        if self.trainer.state.fn == "fit":
            self.plan.reader.close()
            self.trainer.limit_val_batches = self._validation_limit
        else:
            self._evaluation.reader.close()
            del self._evaluation  # with the images

    def _raise_stopped(self) -> None:
        path = save_last(self.trainer)
        how = (
            f'take that limit away or raise it, and go on with Trainer.fit(..., ckpt_path="{path}")'
            if path
            else "take that limit away; nothing was saved, as this Trainer keeps no checkpoints"
        )
        raise RuntimeError(
            "the fit ended without an embedding: the Trainer was stopped early, by max_time, a Timer or another "
            f"callback, after {self.position[0]} of {self.plan.epochs} epochs and {self.position[1]} batches; {how}"
        )

    def _leave_if_stopped(self) -> None:
        if self._signals is not None:
            self._signals.leave_if_stopped()


class _EndOfWorkers(Callback):
    """Ends the workers of a run that an error or a signal cuts short, which Lightning reports only to callbacks."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(pl_module, LightningFit) and pl_module.batch_hooks is not None:  # else it is not set up
            pl_module.end_reading()


def _local_folder(path: str) -> Path | None:
    """None for the address of a remote store."""
    return None if "://" in path else Path(path)
