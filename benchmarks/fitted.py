"""A real task and a probe with a head fitted to it, for the benchmarks in this folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from t2v_lightning import ProbeNetwork, get_probe
from t2v_lightning.data.builtin.crop_tasks import crop_task, open_crop
from t2v_lightning.data.dataset import TaskDataset
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.selection import Selection, select_images
from t2v_lightning.phases import FeaturesPhase, HeadOptions, fisher_of_filters, no_log
from t2v_lightning.phases.head import HeadFit

BATCH = 64
_CROPS = (
    "cat",
    "coffee",
    "flower",
    "astronaut",
    "pagoda",
    "rocket",
    "motorcycle",
    "brick",
    "grass",
    "gravel",
)


def crops_dataset(images: int) -> TaskDataset[Any]:
    """Ten classes of crops of photographs and textures, the same number of each."""
    return TaskDataset(crop_task(_CROPS, "train", train=images), open_crop)


@dataclass(frozen=True)
class FittedTask:
    """Images [N, C, H, W] of a task as the probe takes them, and the probe with its fitted head."""

    probe: ProbeNetwork
    task: Selection
    images: Tensor
    fit: HeadFit

    def batches(self) -> Iterator[Tensor]:
        """Positions of 64 images at a time."""
        return iter(torch.arange(len(self.task)).split(BATCH))


def fitted_task(
    dataset: Any,
    head: HeadOptions,
    size: int,
    network: str = "efficientnet_lite0",
    max_samples: int | None = None,
) -> FittedTask:
    """A probe at `size` pixels whose head is fitted to a dataset of PIL images, or a subset of it.

    EfficientNet-Lite0 has its weights for ImageNet, other networks have random ones.
    """
    task = select_images(dataset, max_samples=max_samples)
    weights = "DEFAULT" if network == "efficientnet_lite0" else None
    probe = get_probe(network, num_classes=task.num_classes, weights=weights, input_size=size)
    chosen = IndexedDataset(dataset, task.chosen, probe.transform)
    images = torch.stack([chosen[i][0] for i in range(len(task))])
    engine = fisher_of_filters(probe, 0, "weights")
    phase = FeaturesPhase(probe, engine.features(probe.backbone), task, head, seed=0)
    for where in torch.arange(len(task)).split(BATCH):
        phase.step(images[where], where)
    phase.finish(no_log)
    assert phase.fit is not None
    return FittedTask(probe, task, images, phase.fit)


def exact_fisher(fitted: FittedTask) -> Tensor:
    """The Fisher that estimators are compared with: float64 [D]."""
    engine = fisher_of_filters(fitted.probe, 0, "weights")
    total = torch.zeros(engine.size, dtype=torch.float64)
    for where in fitted.batches():
        values = engine(fitted.images[where], lambda f: cotangents(f, get_likelihood("softmax"), "exact"))
        total += fitted.task.weights[where] @ values.double()
    return total


class ReferenceEstimator:
    """The estimator of the reference implementation: squared gradients of batch means.

    A batch holds 64 images drawn with replacement, all classes alike; each gets a label from the network's own
    distribution; the gradient of the mean loss is squared and multiplied by the batch size. BatchNorm is in eval
    mode. Calling it takes one batch and adds it to the mean, `fisher`.
    """

    def __init__(self, fitted: FittedTask, seed: int) -> None:
        self.fitted, self.generator = fitted, torch.Generator().manual_seed(seed)
        names = dict(fitted.probe.named_parameters())
        layers = fisher_of_filters(fitted.probe, 0, "weights").layers
        self.weights = [names[f"{fitted.probe.layer_prefix}{layer}.weight"] for layer in layers]
        self.total, self.batches = torch.zeros(sum(map(len, self.weights)), dtype=torch.float64), 0

    @property
    def fisher(self) -> Tensor:
        return self.total / self.batches

    def __call__(self) -> None:
        fitted = self.fitted
        images = fitted.images[torch.multinomial(fitted.task.weights, BATCH, True, generator=self.generator)]
        for weight in self.weights:
            weight.requires_grad_()
        outputs = fitted.probe(images)
        labels = torch.multinomial(outputs.detach().softmax(1), 1, generator=self.generator)[:, 0]
        loss = torch.nn.functional.cross_entropy(outputs, labels)
        gradients = torch.autograd.grad(loss, self.weights)
        self.total += BATCH * torch.cat([g.flatten(1).square().mean(1) for g in gradients]).double()
        self.batches += 1


def relative_error(estimate: Tensor, truth: Tensor) -> float:
    """||estimate - truth|| / ||truth||."""
    return float((estimate - truth).norm() / truth.norm())
