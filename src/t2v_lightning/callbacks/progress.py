"""Progress bars of an embedding."""

import time
from collections.abc import Iterator
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from t2v_lightning.callbacks.planned import followed


class EmbedProgress(Progress):
    """Progress bar of `Task2Vec.embed`: phase, images per second, and the relative standard error or loss so far.

    Args:
        items: what the task is made of, in the plural.
    """

    def __init__(self, items: str = "images") -> None:
        super().__init__(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("batches"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.items = items
        self._current: TaskID | None = None
        self._seen, self._since = 0, 0.0

    def track(self, title: str, batches: Any) -> Iterator[Any]:  # type: ignore[override]
        """Yields the batches, moving the bar on after each."""
        self._current = self.add_task(title, total=len(batches), note="")
        self._seen, self._since = 0, time.perf_counter()
        for batch in batches:
            yield batch
            self.advance(self._current)

    def note(self, count: int, metrics: dict[str, float]) -> None:
        """Shows the speed, and the standard error or the loss where there is one."""
        self._seen += count
        speed = self._seen / max(time.perf_counter() - self._since, 1e-9)
        assert self._current is not None
        self.update(self._current, note=progress_note(speed, metrics, self.items))


class StreamProgress(Progress):
    """How far a stream has been read, whose end nobody knows."""

    def __init__(self) -> None:
        super().__init__(TextColumn("{task.description}"))
        self._since = time.perf_counter()
        self._line = self.add_task("reading the stream", total=None)

    def __call__(self, read: int, kept: int) -> None:
        """Shows the number of items that have been read, and of those that are kept."""
        speed = read / max(time.perf_counter() - self._since, 1e-9)
        self.update(
            self._line, description=f"reading the stream: {read} items, {kept} kept, {speed:.0f} items/s"
        )


class TasksProgress(Progress):
    """Progress bar of `embed_many`: the task at work, and how many are done."""

    def __init__(self, total: int | None) -> None:
        super().__init__(
            TextColumn("{task.description:<20}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tasks"),
            TimeRemainingColumn(),
        )
        self._bar = self.add_task("", total=total)

    def at(self, number: int, title: str) -> None:
        """Shows that so many tasks are done, and what is at work."""
        self.update(self._bar, completed=number, description=title[:20])


def progress_note(speed: float, metrics: dict[str, float], items: str = "images") -> str:
    """The text behind a bar.

    >>> progress_note(31.4, {"fisher/relative_stderr": 0.0412})
    '31 images/s, relative stderr 0.041'
    >>> progress_note(31.4, {"variational/loss": 2.389}, "texts")
    '31 texts/s, loss 2.389'
    """
    note = f"{speed:.0f} {items}/s"
    if "fisher/relative_stderr" in metrics:
        note += f", relative stderr {metrics['fisher/relative_stderr']:.3f}"
    if "variational/loss" in metrics:
        note += f", loss {metrics['variational/loss']:.3f}"
    return note


class PhaseProgressBar(RichProgressBar):
    """Lightning's rich bar, named after the phase instead of the epoch."""

    def __init__(self) -> None:
        super().__init__(theme=RichProgressBarTheme(metrics_format=".3f", metrics_text_delimiter=" "))
        self._seen, self._since = 0, 0.0

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """A short bar without batches per second, as images (or texts) per second say more; fits into 80 characters."""
        description, _, batches, time_column, _ = super().configure_columns(trainer)
        return [description, BarColumn(bar_width=8), batches, time_column]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._seen, self._since = 0, time.perf_counter()

    def _get_train_description(self, current_epoch: int) -> str:
        phase, epoch = followed(self.trainer.lightning_module).plan.phase_at(current_epoch)
        return str(phase.name_of(epoch))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._seen += len(batch[1]) * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The speed, and the standard error so far or the loss."""
        speed = self._seen / max(time.perf_counter() - self._since, 1e-9)
        shown: dict[str, Any] = {f"{followed(pl_module).plan.items}/s": f"{speed:.0f}"}
        for name, metric in {"stderr": "fisher/relative_stderr", "loss": "variational/loss"}.items():
            if metric in trainer.progress_bar_metrics:
                shown[name] = trainer.progress_bar_metrics[metric]
        return shown
