"""How the fitted head does on images that the fit has not seen."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric, MetricCollection, R2Score, SumMetric
from torchmetrics.classification import MultilabelAveragePrecision

from t2v_lightning.functional.inputs import Inputs, device_of, take, to, transform
from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.loading.dataset import Batch, IndexedDataset
from t2v_lightning.loading.hooks import BatchHooks
from t2v_lightning.loading.loader import LoaderOptions, PhaseLoader, Reader
from t2v_lightning.loading.sampler import ShardedSampler
from t2v_lightning.loading.selection import Selection, check_map_style
from t2v_lightning.loading.strata import equal_class_weights
from t2v_lightning.loading.targets import targets_of_items
from t2v_lightning.loading.users import dataset_of, loader_options, one_loader
from t2v_lightning.phases.out_of_memory import Halving
from t2v_lightning.phases.precision import full_precision
from t2v_lightning.task2vec.plain_loop import Bar
from t2v_lightning.task2vec.plan import Plan

_FEW = 5
"""Labels that an error lists."""


class Evaluation:
    """The fitted probe of a plan on other images of its task, without the noise that it may have been trained under.

    Classes weigh as in the fit: all the same if `balanced`, else by their number of images. The targets of a regression
    are measured in the unit in which the head was fitted.

    Args:
        plan: a finished one; nothing of it is changed.
        dataset: map-style, of (input, target) with the labels of the fit. Where `labelled` is False the targets are not
            looked at, and items may be inputs alone.
        loading: how batches are made.
        hooked: the datamodule and module whose hooks batches go through on their way to the device, in this order.
        processes: that share the images.
        labelled: whether the images are compared with targets.

    Raises:
        TypeError, ValueError: the dataset is empty or not map-style, or has targets that the fit has not.
    """

    def __init__(
        self,
        plan: Plan,
        dataset: Any,
        loading: LoaderOptions,
        hooked: Sequence[Any] = (),
        processes: int = 1,
        labelled: bool = True,
    ) -> None:
        check_map_style(dataset)
        self.plan, self.kind = plan, get_likelihood(plan.selection.likelihood)
        if self.kind.of_inputs:
            raise ValueError(
                f"test texts are measured by their labels, which likelihood={self.kind.name!r} has none of; leave "
                "them out"
            )
        labels = torch.zeros(len(dataset), dtype=torch.int64)
        if labelled:
            labels = targets_of_items(dataset, self.kind)
            self._targets, self._weights = self._measured_by(labels)
        self.dataset = IndexedDataset(
            dataset if labelled else _Inputs(dataset),
            torch.arange(len(dataset)),
            plan.probe.transform,
            labels if labelled else None,
        )
        self.reader = Reader(self.dataset, loading)
        self.hooks = BatchHooks(hooked, labels, testing=True)
        self._halving = Halving("evaluation")
        self._together = processes > 1

    def loader(self, rank: int = 0, world_size: int = 1) -> PhaseLoader:
        """All images in their order, this process's share; positions beyond the dataset stand for none."""
        order, size = torch.arange(len(self.dataset)), self.reader.options.batch_size
        return PhaseLoader(self.reader, ShardedSampler(order, len(order), size, rank, world_size))

    def outputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Outputs [B, K] of a batch without its padding, and their positions int64 [B] in the dataset."""
        inputs, positions = batch
        real, probe = positions < len(self.dataset), self.plan.probe
        if not bool(real.any()):
            return probe.head.weight.new_zeros(0, probe.num_classes), positions[real]
        with _plain_tensors(), full_precision(device_of(inputs)):
            own = transform(Tensor.clone, take(inputs, real))
            parts = self._halving(self._network, to(own, dtype=probe.head.weight.dtype))
            return torch.cat(parts), positions[real]

    def update(self, batch: Batch) -> None:
        """Takes in a batch."""
        outputs, positions = self.outputs(batch)
        if not len(outputs):
            return
        with _plain_tensors():
            places, outputs = positions.cpu(), outputs.double()
            targets, weights = (part[places].to(outputs.device) for part in (self._targets, self._weights))
            metrics = self._metrics
            metrics["images"].update(len(outputs))
            metrics["loss"].update(self.kind.loss(outputs, targets), weights)
            if self.kind.name != "gaussian":
                metrics[self.kind.log_name].update(self.kind.accuracy(outputs, targets), weights)
            if "R2" in metrics:
                metrics["R2"].update(outputs, targets.double())
            if "average_precision" in metrics:
                occurring = self._occurring.to(outputs.device)
                scores = outputs.sigmoid()[:, occurring]
                metrics["average_precision"].update(scores, targets[:, occurring].long())

    def result(self) -> dict[str, float]:
        """The numbers of all images so far, of all processes, which call it together.

        `images` counts them, `loss` is the mean negative log-likelihood. `accuracy` of classes, `average_precision` and
        `right_labels` of labels, or `R2` of a regression follow.
        """
        with _plain_tensors():
            found = {name: float(metric.compute()) for name, metric in self._metrics.items()}
        return found | {"images": round(found["images"])}

    def predictions(self, batch: Batch) -> dict[str, Tensor]:
        """What the probe says of a batch, in the terms of the dataset; see `Task2Vec.predict_step`."""
        outputs, positions = self.outputs(batch)
        if self.kind.name == "gaussian":
            units = self.plan.units or {"target_mean": [0.0], "target_std": [1.0]}
            mean, std = (outputs.new_tensor(units[name]) for name in ("target_mean", "target_std"))
            return {"index": positions, "value": outputs * std + mean}
        if self.kind.name == "bernoulli":
            return {"index": positions, "probability": outputs.sigmoid()}
        classes = torch.tensor(self.plan.selection.classes, device=outputs.device)
        return {
            "index": positions,
            "label": classes[outputs.argmax(1)],
            "probability": outputs.softmax(1),
        }

    def _network(self, inputs: Inputs) -> Tensor:
        """Outputs [B, K] of the probe with everything that the fit has learned, save the noise."""
        learned = {
            name: value for phase in self.plan.phases for name, value in phase.learned_weights().items()
        }
        outputs: Tensor = functional_call(self.plan.probe, learned, (inputs,))
        return outputs

    def _measured_by(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The targets in the terms of the head, and the weights of the images."""
        targets = held_out_targets(self.plan.selection, labels)
        if self.kind.has_classes and self.plan.options.balanced:
            return targets, equal_class_weights(targets)
        if self.plan.units:
            mean, std = (torch.tensor(self.plan.units[name]) for name in ("target_mean", "target_std"))
            targets = (targets - mean) / std
        return targets, torch.full((len(targets),), 1 / len(targets), dtype=torch.float64)

    @cached_property
    def _metrics(self) -> MetricCollection:
        """Sums on the device of the probe, which are added up over processes or stay in this one if it works alone."""
        sync: dict[str, Any] = {"sync_on_compute": self._together}
        made: dict[str, Any] = {"images": SumMetric(**sync)}
        means = ["loss"] if self.kind.name == "gaussian" else ["loss", self.kind.log_name]
        made |= {name: MeanMetric("error", **sync) for name in means}  # "disable" would drop the weights
        if self.kind.name == "gaussian" and len(self.dataset) > 1:
            made["R2"] = R2Score(multioutput="variance_weighted", **sync)
        if self.kind.name == "bernoulli" and bool(self._targets.any()):
            self._occurring = self._targets.any(
                0
            )  # the precision of a label that never occurs is not defined
            made["average_precision"] = MultilabelAveragePrecision(
                int(self._occurring.sum()), validate_args=False, **sync
            )
        metrics = MetricCollection(made, compute_groups=False).to(self.plan.probe.head.weight.device)
        return metrics.set_dtype(torch.float64)


def held_out_targets(task: Selection, labels: Tensor) -> Tensor:
    """Targets of other images as the head of a task numbers them: int64 [N], or as they are without classes.

    Args:
        task: that the head was fitted to.
        labels: as `Likelihood.read_targets` gives them for the other images.

    Raises:
        ValueError: a class or a number of labels that the task does not have.

    >>> task = Selection(*[torch.tensor([0, 1])] * 2, torch.ones(2) / 2, 2, (3, 7), torch.tensor([0, 1]), "softmax")
    >>> held_out_targets(task, torch.tensor([7, 3, 7]))
    tensor([1, 0, 1])
    """
    if not get_likelihood(task.likelihood).has_classes:
        if labels.shape[1] != task.num_classes:
            raise ValueError(
                f"the targets of the items to evaluate have {labels.shape[1]} numbers, and those of the fit have "
                f"{task.num_classes}; give items of the same task"
            )
        return labels
    classes = torch.tensor(task.classes)
    known = torch.isin(labels, classes)
    if not bool(known.all()):
        strange = labels[~known].unique().tolist()
        raise ValueError(
            f"{int((~known).sum())} of {len(labels)} items to evaluate carry labels that the fit has not seen: "
            f"{_listed(strange)}. Its classes are {_listed(task.classes)}. Leave these out, for example with "
            "torch.utils.data.Subset, or fit on items of all classes"
        )
    return torch.searchsorted(classes, labels)


def held_out_source(
    source: Any, like: LoaderOptions, hooked: Sequence[Any]
) -> tuple[Any, LoaderOptions, Sequence[Any]]:
    """What `Evaluation` takes for a dataset, DataLoader or LightningDataModule, of which the test split counts.

    Args:
        source: of images and targets.
        like: how batches are made where the source does not say.
        hooked: whose hooks batches go through where the source has none of its own.
    """
    if isinstance(source, LightningDataModule):
        source.prepare_data()
        source.setup("test")
        loader = one_loader(source.test_dataloader(), "testing")
        return dataset_of(loader), loader_options(loader), [source, *hooked[-1:]]
    if isinstance(source, DataLoader):
        return dataset_of(source), loader_options(source), hooked
    return source, like, hooked


def evaluate(evaluation: Evaluation, device: torch.device, bar: Bar | None = None) -> dict[str, float]:
    """The numbers of `Evaluation.result` for all images, read by this process alone.

    Args:
        evaluation: of a plan whose probe is on the device.
        device: of this process.
        bar: shows the progress; None shows none.
    """
    with closing(evaluation.reader):
        batches: Iterable[Batch] = evaluation.loader()
        for batch in bar.track("test", batches) if bar else batches:
            inputs, positions = evaluation.hooks(batch, device) if evaluation.hooks else batch
            evaluation.update((to(inputs, device), positions))
            if bar:
                bar.note(len(positions), {})
    return evaluation.result()


class _Inputs(Dataset[tuple[Any, int]]):
    """Items with 0 in place of a target; those that are not pairs are inputs alone."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int) -> tuple[Any, int]:
        found = self.dataset[item]
        return (found[0] if isinstance(found, (tuple, list)) and len(found) == 2 else found), 0


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """No gradients, and no inference mode, whose tensors a network that keeps some could not use in another fit."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _listed(labels: Sequence[int]) -> str:
    return ", ".join(map(str, labels[:_FEW])) + ", ..." * (len(labels) > _FEW)
