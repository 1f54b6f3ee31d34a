"""How one embedding is computed: a probe, the images of a task, and phases that run one after another."""

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from t2v_lightning._version import __version__
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.summary import items_of
from t2v_lightning.functional.inputs import Inputs, describe, take
from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.fingerprint import fingerprint
from t2v_lightning.loading.hooks import BatchHooks
from t2v_lightning.loading.loader import LoaderOptions, PhaseLoader, Reader
from t2v_lightning.loading.long_texts import count_long_texts
from t2v_lightning.loading.sampler import ShardedSampler
from t2v_lightning.loading.selection import Selection
from t2v_lightning.loading.streams import StreamSample
from t2v_lightning.phases import METHODS, FeaturesPhase, KeptHeadPhase, MethodPhase, Phase, State
from t2v_lightning.phases.base import one_process
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.probes.text_transform import TextTransform
from t2v_lightning.probes.transforms import ImageTransform
from t2v_lightning.task2vec.options import EmbeddingOptions


class Plan:
    """One embedding from its images to its numbers; whoever runs it drives `phases` over the batches of `loader`.

    Args:
        probe: its head is new, or the one to keep; it is fitted in place.
        probe_digest: identifies the weights of the probe, whatever precision a Trainer turns them into.
        options: of the user.
        selection: which images, with which targets and weights.
        dataset: where they come from.
        loading: how batches are made.
        meta: what is known about the task: its name, classes, family.
        processes: that share the images, each with a plan of its own.
        run_folder: where large files may go; None for the system's temporary folder.
        hooked: the datamodule and module whose hooks batches go through on their way to the device, in this order.
        before: of another task, with the same probe and options.
        dev_batches: batches of a development run, of which the selection holds no more; 0 for none.

    Attributes:
        hooks: theirs; whoever runs the plan puts every batch through them.
        random_hooks: whether these change a batch at random.
        phases: features and head, then the method's own.
        layers: name -> slice of the embedding.
        learned: parameters besides the head that the phases learn, or None.
        mixed: the mixed precision of the Trainer in which a method learns, or None.

    Raises:
        ValueError: the images do not suit the probe, or the network cannot be measured.
    """

    def __init__(
        self,
        probe: ProbeNetwork,
        probe_digest: str,
        options: EmbeddingOptions,
        selection: Selection,
        dataset: Any,
        loading: LoaderOptions,
        meta: dict[str, Any],
        processes: int = 1,
        run_folder: Path | None = None,
        hooked: Sequence[Any] = (),
        before: "Plan | None" = None,
        dev_batches: int = 0,
    ) -> None:
        self.probe, self.probe_digest, self.options = probe, probe_digest, options
        self.selection, self.meta, self.processes = selection, meta, processes
        targets, self.units = get_likelihood(selection.likelihood).standardise(
            selection.targets, selection.weights
        )
        if options.head.method == "keep":  # which has units of its own
            targets, self.units = selection.targets, {}
        task = replace(selection, targets=targets)
        of_inputs = get_likelihood(selection.likelihood).of_inputs
        labels = None if of_inputs else selection.labels
        self.dataset = IndexedDataset(dataset, selection.chosen, probe.transform, labels)
        self.reader = Reader(self.dataset, loading)
        self.dev_batches = dev_batches
        self.hooks, self.random_hooks = BatchHooks(hooked, selection.labels), False
        example = self._first_input()
        if isinstance(probe.transform, TextTransform):  # each text has a length of its own
            example = None
        cut_off = count_long_texts(self.dataset)
        if cut_off is not None:
            self.prepared["texts_cut_off"] = cut_off
        all_reduce = _add_over_processes if processes > 1 else one_process
        last: MethodPhase = METHODS[options.method].phase.of(
            probe,
            task,
            options.own,
            skip_layers=options.skip_layers,
            seed=options.seed,
            example=example,
            probe_digest=probe_digest,
            before=None if before is None else before.phases[-1],
            learn_head=options.head.method != "keep",
            all_reduce=all_reduce,
        )
        budget = None if options.features_budget is None else 1e9 * options.features_budget
        if of_inputs:
            first: Phase = KeptHeadPhase(
                probe, last.features, task, options.head, all_reduce, options.seed, budget, run_folder
            )
        else:
            first = FeaturesPhase(
                probe,
                last.features,
                task,
                options.head,
                options.seed,
                all_reduce,
                budget,
                run_folder,
                last,
            )
        self.phases: list[Phase] = [first, last]
        self.mixed: str | None = None
        self.layers, self.learned = last.layers, last.learned

    @property
    def epochs(self) -> int:
        """Number of epochs of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def items(self) -> str:
        """What the task is made of, in the plural: images or texts."""
        return items_of({"likelihood": self.selection.likelihood, **self.prepared})

    def phase_at(self, epoch: int) -> tuple[Phase, int]:
        """The phase that an epoch of the whole belongs to, and the epoch within it."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase, epoch
            epoch -= phase.epochs
        raise IndexError(f"epoch {epoch + self.epochs} is beyond the last phase; there are {self.epochs}")

    def loader(self, phase: Phase, epoch: int, rank: int = 0, world_size: int = 1) -> PhaseLoader:
        """Batches of one epoch of a phase, this process's share."""
        size = self.reader.options.batch_size
        sampler = ShardedSampler(phase.order(epoch), phase.padding, size, rank, world_size)
        return PhaseLoader(self.reader, sampler, epoch)

    def to(self, device: torch.device) -> None:
        """Moves the probe and what is learned."""
        self.probe.to(device)
        if self.learned is not None:
            self.learned.to(device)

    def settings(self) -> State:
        """Everything besides the Trainer that the last digits depend on, by the names that a user knows."""
        task, options = self.selection, self.options
        return {
            "batch_size": self.reader.options.batch_size,
            "probe": self.probe.name,
            "weights of the probe": self.probe_digest,
            "dataset": self.meta["dataset"],
            f"number of {self.items}": len(task),
            f"labels and choice of {self.items}": fingerprint(task.chosen, task.targets, task.weights),
            self.items: self.dataset.fingerprint,
            "likelihood": task.likelihood,
            "skip_layers": options.skip_layers,
            "seed": options.seed,
            "method": options.method,
            **asdict(options.own),
            **{f"head.{name}": value for name, value in asdict(options.head).items()},
        }

    def result(self) -> Embedding:
        """The embedding, once all phases are finished; all processes take part."""
        fields: dict[str, Any] = {}
        found: dict[str, Any] = {}
        for phase in reversed(self.phases):
            part = phase.result()
            found |= part.pop("meta", {})
            fields |= part
        task, options = self.selection, self.options
        meta = {
            **self.meta,
            "method": options.method,
            "probe": self.probe.name,
            "probe_digest": self.probe_digest,
            "likelihood": task.likelihood,
            **self.prepared,
            "precision": self.mixed or f"{torch.finfo(self.probe.head.weight.dtype).bits}-true",
            "skip_layers": options.skip_layers,
            "balanced": options.balanced and get_likelihood(task.likelihood).has_classes,
            "seed": options.seed,
            "samples": len(task),
            "num_classes": task.num_classes,
            "classes": list(task.classes),
            **self.units,
            **found,
            **({"fast_dev_run": self.dev_batches} if self.dev_batches else {}),
            "versions": {
                "t2v_lightning": __version__,
                "torch": torch.__version__,
                "lightning": version("pytorch-lightning"),
            },
        }
        return Embedding(**fields, layers=self.layers, meta=meta)

    def _first_input(self) -> Inputs:
        """The first input of the dataset, so that one of a wrong shape is an error before the work starts.

        Notes how it was prepared: the size that reaches the probe, and the transform where it was applied.
        """
        applied, of_probe = [], self.probe.transform

        def transform(image: Any) -> Inputs:
            assert of_probe is not None
            applied.append(_describe_transform(of_probe))
            return of_probe(image)

        known: Any = None if of_probe is None else transform
        if isinstance(of_probe, TextTransform):  # which is applied to token ids too
            known, applied = of_probe, [_describe_transform(of_probe)]
        first: Inputs = IndexedDataset(self.dataset.dataset, self.selection.chosen, known)[0][0]
        if self.hooks:
            few = self.reader.batch_of(range(min(8, len(self.dataset), self.reader.options.batch_size)))
            inputs, self.random_hooks = self.hooks.try_out(few, self.probe.head.weight.device)
            first = take(inputs, 0)
        size = self.probe.input_size
        if size is not None and not (
            isinstance(first, Tensor) and first.dim() == 3 and first.shape[0] == size[0]
        ):
            raise ValueError(
                f"image 0 of the dataset is a tensor {describe(first)}; the probe {self.probe.name!r} takes float "
                f"tensors [{size[0]}, H, W], or PIL images, to which it applies its own transform"
            )
        self.prepared: dict[str, Any] = {
            "input_size": None if size is None else list(first.shape),
            "transform": applied[0] if applied else None,
        }
        return first


def describe_task(source: Any, dataset: Any) -> dict[str, Any]:
    """What a datamodule says about its task; for any other source, the class of the dataset.

    Args:
        source: a LightningDataModule, or anything else.
        dataset: that the images come from.
    """
    names = {
        "dataset": "name",
        "task_name": "task_name",
        "task_id": "task_id",
        "family": "family",
        "class_names": "class_names",
        "taxon": "taxon",
    }
    known = {
        name: getattr(source, attribute)
        for name, attribute in names.items()
        if isinstance(source, LightningDataModule) and hasattr(source, attribute)
    }
    if isinstance(dataset, StreamSample):
        known = {"dataset": dataset.stream_name, "stream_items": dataset.stream_items, **known}
    return known | {"dataset": known.get("dataset") or type(getattr(dataset, "dataset", dataset)).__name__}


def _describe_transform(transform: Any) -> Any:
    """The numbers of a transform, or its text without the addresses of objects, which change from run to run."""
    if isinstance(transform, ImageTransform):
        return asdict(transform)
    return re.sub(" at 0x[0-9a-f]+", "", repr(transform))


def _add_over_processes(sums: Tensor) -> None:
    torch.distributed.all_reduce(sums)
