"""The experts: networks fine-tuned on a task each, and what every one of them makes of every image."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selection.image_set import Labels
from selection.networks import Network, imagenet, larger, with_random_late_stages
from selection.tasks import SOURCES, Pixels, Source, learned, pixels, save

STEPS, BATCH, RATE = 32, 64, 1e-3
DEFAULT = "imagenet"
FIXED = (DEFAULT, "lite1", "lite2")
"""Experts that do not depend on the seed."""
RANDOM = "random"


class Setting(NamedTuple):
    """Folders and the size of images in pixels; `sources` are the sets of images that take part."""

    cache: Path
    size: int
    sources: tuple[str, ...] = tuple(SOURCES)

    @property
    def packages(self) -> Path:
        return self.cache / "packages"

    def pixels(self, source: str) -> Pixels:
        return _pixels(source, self.packages, self.size, self.cache)

    def path(self, name: str) -> Path:
        return self.cache / str(self.size) / name


@cache
def _pixels(source: str, root: Path, size: int, folder: Path) -> Pixels:
    return pixels(source, root, size, folder)


class Outputs(NamedTuple):
    """What an expert makes of the used images of a set: features [M, 1280] and its own classes' logits [M, C]."""

    features: NDArray[Any]
    logits: NDArray[Any]


def expert_names(setting: Setting, larger_ones: bool = True) -> list[str]:
    """Fixed ones, the random one, and the tasks that have an expert."""
    tuned = [task for source in setting.sources for task in SOURCES[source].experts]
    return [*(FIXED if larger_ones else FIXED[:1]), RANDOM, *tuned]


def make_expert(setting: Setting, name: str, seed: int) -> None:
    """Fine-tunes an expert if it needs to be, and stores its outputs; nothing is done where they are."""
    seed = 0 if name in FIXED else seed
    path = setting.path(f"expert_{name}_{seed}.npz")
    if path.exists():
        return
    if name in FIXED[1:]:
        network = larger(name, setting.packages)
        frozen = _early(network)
    else:
        network = with_random_late_stages(seed) if name == RANDOM else imagenet()
        frozen = lambda images, source: torch.from_numpy(frozen_stages(setting, source)).float()  # noqa: E731
        source = next((s for s in setting.sources if name in SOURCES[s].experts), None)
        if source is not None:
            _fine_tune(network, frozen, setting, source, name, seed)
    arrays = {}
    for source in setting.sources:
        images = setting.pixels(source)
        used = torch.from_numpy(images.used)
        with torch.inference_mode():
            activations = frozen(images, source)[used]
            features = torch.cat([network.late(_last(part)) for part in activations.split(BATCH)])
            logits = network.head(features)
        arrays[f"features_{source}"] = features.half().numpy()
        arrays[f"logits_{source}"] = logits.half().numpy()
    save(path, **arrays)


def load_expert(setting: Setting, name: str, seed: int) -> Mapping[str, Outputs]:
    """Its outputs by the set of images."""
    with np.load(setting.path(f"expert_{name}_{0 if name in FIXED else seed}.npz")) as file:
        return {s: Outputs(file[f"features_{s}"], file[f"logits_{s}"]) for s in setting.sources}


def frozen_stages(setting: Setting, source: str) -> NDArray[Any]:
    """Activations float16 [N, C, H, W] of Lite0's early stages, computed once for each set of images."""
    path = setting.path(f"frozen_{source}.npz")
    if not path.exists():
        network = imagenet()
        images = setting.pixels(source).normalised
        with torch.inference_mode():
            parts = [network.early(_last(part)).half() for part in images.split(BATCH)]
        save(path, activations=torch.cat(parts).contiguous().numpy())
    with np.load(path) as file:
        activations: NDArray[Any] = file["activations"]
        return activations


def _early(network: Network) -> Callable[[Pixels, str], Tensor]:
    return lambda images, source: torch.cat(
        [network.early(_last(part)) for part in images.normalised.split(BATCH)]
    )


def _fine_tune(network: Network, frozen: Any, setting: Setting, source: str, task: str, seed: int) -> None:
    """Adam on the late stages and a new head, on batches that have equally many images of each class."""
    images = setting.pixels(source)
    labels = images.labels[task]
    where = learned(labels, images.side)
    activations, y = frozen(images, source)[torch.from_numpy(where)], torch.from_numpy(labels[where])
    generator = torch.Generator().manual_seed(crc32(f"{task} {seed}".encode()))
    head = nn.Linear(network.head.in_features, int(y.max()) + 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    weights = 1 / y.bincount()[y].double()
    parameters = [*network.late.parameters(), *head.parameters()]
    network.late.requires_grad_()
    optimizer = torch.optim.Adam(parameters, RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for _ in range(STEPS):
        batch = torch.multinomial(weights, BATCH, replacement=True, generator=generator)
        loss = nn.functional.cross_entropy(head(network.late(_last(activations[batch]))), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.late.requires_grad_(False)
    network.head = head.requires_grad_(False)


def _last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def task_labels(setting: Setting) -> dict[str, tuple[str, Source, Labels]]:
    """Each task with its set of images, the source and its labels."""
    return {
        task: (source, SOURCES[source], labels)
        for source in setting.sources
        for task, labels in setting.pixels(source).labels.items()
    }
