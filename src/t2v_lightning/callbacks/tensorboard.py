"""What TensorBoard shows of a fit besides its curves."""

import io
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from t2v_lightning.callbacks.example_texts import read_texts, texts_table
from t2v_lightning.callbacks.examples import mosaic, plot_examples, read_examples
from t2v_lightning.callbacks.planned import followed
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.run_folder import THUMBNAIL_FILE, whole_file
from t2v_lightning.embedding.summary import likelihood_of, summarise
from t2v_lightning.plots.profiles import plot_stage_profile, stage_labels
from t2v_lightning.plots.style import new_axes

_DPI = 100

_PROFILE = (4.6, 3.4)
"""Width and height of the profile in inches: as small as its text allows, as TensorBoard shrinks larger figures."""

_BINS = 30
"""Bins of equal width, as many as TensorBoard draws; its own are a tenth of their position wide, too much for logs."""


class TensorBoardSummary(Callback):
    """Writes images or texts of the task with their labels, and at the end a summary and the embedding stage by stage.

    For a module with `plan`, `embedding` and `logged`, such as `Task2Vec`.

    With `with_test`, for a fit that `Trainer.test` follows, the summary is written once that is done. It comes with the
    settings and the main results, which TensorBoard shows side by side for all runs on its page HPARAMS.

    Each stage has a histogram of log10 Fisher, and all of them are one behind another in `log10_fisher`, whose
    step is the number of the stage. Only the first process writes, and only to a `TensorBoardLogger`; a resumed fit
    does not write what its log already has. The log is on disk before a checkpoint is, so that a fit that is killed and
    resumed has no gap in its curves.

    Args:
        with_test: whether the summary waits for the end of `Trainer.test`.

    Attributes:
        seconds: how long each part of the work has taken so far, before the fit was resumed included.
    """

    def __init__(self, with_test: bool = False) -> None:
        self.with_test = with_test
        self.seconds: dict[str, float] = {}
        self._since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        plan = followed(pl_module).plan
        loggers = _loggers_without("examples", trainer, pl_module)
        names = plan.meta.get("class_names")
        if loggers and (examples := read_examples(plan.dataset, plan.selection, names)):
            picture = pixels(plot_examples(examples))
            for logger in loggers:
                logger.experiment.add_image("examples", picture, dataformats="HWC")
                logger.experiment.flush()
                _save_thumbnail(mosaic(examples), logger.log_dir)
        loggers = _loggers_without("examples/text_summary", trainer, pl_module)
        if loggers and (texts := read_texts(plan.dataset, plan.selection, names)):
            for logger in loggers:
                logger.experiment.add_text("examples", texts_table(texts))
                logger.experiment.flush()
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:  # the head was fitted at the end of the first
            self._lap("head")
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        plan = followed(pl_module).plan
        self._lap(plan.phase_at(trainer.current_epoch)[0].title)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = followed(pl_module)
        embedding = module.embedding
        if embedding is None:
            return
        stages = module.plan.probe.stages
        if loggers := _loggers_without("profile", trainer, pl_module):
            profile = pixels(plot_stage_profile([embedding], stages=stages, ax=new_axes(*_PROFILE)))
            for writer in (logger.experiment for logger in loggers):
                writer.add_image("profile", profile, dataformats="HWC")
                for stage, (name, entries) in enumerate(by_stage(embedding, stages).items()):
                    for tag, step in (("log10_fisher", stage), (f"log10_fisher/{name}", 0)):
                        writer.add_histogram(tag, torch.from_numpy(entries), step, bins=_BINS)
                writer.flush()
        if not self.with_test:
            self._write_summary(embedding, trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.with_test and (embedding := followed(pl_module).embedding) is not None:
            self._lap("test")
            self._write_summary(embedding, trainer, pl_module)

    def _write_summary(self, embedding: Embedding, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in _loggers_without("summary/text_summary", trainer, pl_module):
            logger.experiment.add_text("summary", summarise(embedding, self.seconds))
            logger.log_hyperparams(dict(logger.hparams), main_results(embedding), trainer.global_step)
            logger.experiment.flush()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.flush()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": dict(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = dict(state_dict["seconds"])

    def _lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


def note_hyperparameters(loggers: Iterable[Any], settings: dict[str, Any]) -> None:
    """Gives every logger the settings of a fit. TensorBoard's page of them waits for results, which it shows along."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.hparams.update(settings)
            logger.save()
        else:
            logger.log_hyperparams(settings)


def main_results(embedding: Embedding) -> dict[str, float]:
    """What is worth comparing over many runs, by the names of its curves.

    >>> meta = {"likelihood": "softmax", "head": {"accuracy": 1.0}, "test": {"images": 50, "accuracy": 0.9}}
    >>> main_results(Embedding([3.0, 4.0], [1, 1], meta=meta))
    {'embedding/norm': 5.0, 'train/accuracy': 1.0, 'test/accuracy': 0.9}
    """
    meta = embedding.meta
    results = {"embedding/norm": embedding.norm}
    if embedding.relative_stderr is not None:
        results["embedding/relative_stderr"] = embedding.relative_stderr
    results[f"train/{likelihood_of(meta).log_name}"] = meta["head"]["accuracy"]
    return results | {
        f"test/{name}": value for name, value in meta.get("test", {}).items() if name != "images"
    }


def by_stage(embedding: Embedding, stages: Sequence[str] | None = None) -> dict[str, NDArray[np.float64]]:
    """log10 of the entries of each stage of the probe, in the order of the network, dead filters left out.

    Args:
        embedding: of any probe.
        stages: names of its stages; by default found from the names of its layers.

    >>> layers = {"conv1": slice(0, 1), "layer1.conv": slice(1, 3), "layer2.conv": slice(3, 4)}
    >>> by_stage(Embedding([1, 10, 0, 100], [1] * 4, layers=layers))
    {'0 conv1': array([0.]), '1 layer1': array([1.]), '2 layer2': array([2.])}
    """
    found: dict[str, list[NDArray[np.float64]]] = {}
    labels = stage_labels(list(embedding.layers), stages)
    for label, entries in zip(labels, embedding.layers.values(), strict=True):
        found.setdefault(label, []).append(embedding.fisher[entries])
    width = len(str(len(found) - 1))
    whole = {f"{i:0{width}} {name}": np.concatenate(v) for i, (name, v) in enumerate(found.items())}
    return {name: np.log10(values[values > 0]) for name, values in whole.items() if values.any()}


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """A figure as RGB: uint8 [height, width, 3]."""
    file = io.BytesIO()
    figure.savefig(file, dpi=_DPI)
    return np.array(Image.open(file).convert("RGB"))


def last_steps(logger: object) -> dict[str, int]:
    """The last step of everything in a TensorBoard log; empty for other loggers and for a new log."""
    if not isinstance(logger, TensorBoardLogger) or not any(Path(logger.log_dir).glob("events.out.*")):
        return {}
    from tensorboard.backend.event_processing import event_accumulator as reading  # slow, and rarely needed

    sizes = {
        **dict.fromkeys(reading.DEFAULT_SIZE_GUIDANCE, 1),
        reading.SCALARS: 0,
    }  # all scalars, one event of anything else
    log = reading.EventAccumulator(logger.log_dir, sizes, purge_orphaned_data=False)
    log.Reload()
    tags = log.Tags()
    others = (tag for kind in ("images", "histograms", "tensors") for tag in tags[kind])
    # files of the same second come in no particular order
    last = {tag: max(event.step for event in log.Scalars(tag)) for tag in tags["scalars"]}
    return dict.fromkeys(others, 0) | last


def _save_thumbnail(picture: Image.Image, folder: str) -> None:
    if "://" not in folder:  # no projector looks for it in a remote log
        with whole_file(Path(folder) / THUMBNAIL_FILE) as part:
            picture.save(part, format="PNG")


def _loggers_without(tag: str, trainer: Trainer, module: LightningModule) -> list[TensorBoardLogger]:
    """The loggers of this process whose logs lack a tag."""
    return [
        logger
        for logger, last in zip(trainer.loggers, followed(module).logged, strict=True)
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero and tag not in last
    ]
