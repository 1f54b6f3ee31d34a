"""Every task of the benchmark: labels on a set of images, few images of each class to learn from, and its family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selection import builtin_sources, sources
from selection.image_set import OUTSIDE, ImageSet, Labels
from t2v_lightning import get_probe
from t2v_lightning.embedding.run_folder import whole_file

DRAWS = 5
SHOTS, LEAST = 10, 40
"""Images of a class that a draw has, and of a draw in all at least."""


class Source(NamedTuple):
    """A set of images: its family, how it is loaded from the folder of packages, and the tasks that get an expert."""

    family: str
    load: Callable[[Path], ImageSet]
    experts: tuple[str, ...]


def _builtin(family: str, load: Callable[[], ImageSet], *experts: str) -> Source:
    return Source(family, lambda root: load(), experts)


BUILTIN: Mapping[str, Source] = {
    "digits": _builtin("digits", builtin_sources.digits, "digits", "digits_odd_even"),
    "faces": _builtin("faces", builtin_sources.faces, "faces"),
    "faces_photos": _builtin("faces", builtin_sources.faces_photos),
    "faces_turned": _builtin("faces", builtin_sources.faces_turned, "faces_turned"),
    "textures": _builtin("textures", builtin_sources.textures, "textures"),
    "photos": _builtin("photos", builtin_sources.photos, "photos"),
    "medical": _builtin("medical", builtin_sources.medical, "medical"),
}

FETCHED: Mapping[str, Source] = {
    "mnist": Source("digits", sources.mnist, ("mnist", "mnist_odd_even")),
    "fashion": Source("fashion", sources.fashion, ("fashion", "fashion_tops", "fashion_odd_even")),
    "glyphs": Source("glyphs", sources.glyphs, ("glyphs_letter", "glyphs_font", "glyphs_case")),
    "numerals": Source("glyphs", sources.numerals, ("numerals",)),
    "emoji_twitter": Source(
        "emoji",
        partial(sources.emoji, vendor="twitter"),
        ("emoji_twitter_category", "emoji_twitter_kind", "emoji_twitter_person"),
    ),
    "emoji_google": Source("emoji", partial(sources.emoji, vendor="google"), ("emoji_google_category",)),
    "clipart": Source("clipart", sources.clipart, ("clipart",)),
    "flags": Source("clipart", sources.flags, ("flags",)),
    "icons": Source("clipart", sources.icons, ("icons_kind", "icons_theme")),
    "stamps": Source("stamps", sources.stamps, ("stamps",)),
    "units": Source("game", sources.units, ("units_race", "units_act")),
    "terrain": Source("game", sources.terrain, ("terrain",)),
}

SOURCES = {**BUILTIN, **FETCHED}


@dataclass(frozen=True)
class Pixels:
    """A set of images at one size.

    Attributes:
        images: uint8 [N, 3, size, size], as the probe's resizing and cropping gives them.
        side: uint8 [N]: 0 for images that experts learn from, 1 for those of draws, 2 for those that probes are tested
            on. An expert has seen neither the draws nor the test images of any task on the same images.
        labels: for each task int64 [N].
    """

    images: Tensor
    side: NDArray[np.uint8]
    labels: Mapping[str, Labels]

    @property
    def used(self) -> NDArray[np.int64]:
        """Positions of the images that features are needed of: those of draws and of tests."""
        return np.flatnonzero(self.side)

    @property
    def normalised(self) -> Tensor:
        """float32, as EfficientNet-Lite takes them."""
        return (self.images.float() - 127) / 128


def pixels(name: str, root: Path, size: int, cache: Path) -> Pixels:
    """The images of a source at a size; made once."""
    path = cache / str(size) / f"images_{name}.npz"
    if not path.exists():
        transform = get_probe("efficientnet_lite0", input_size=size).transform
        assert transform is not None
        images = SOURCES[name].load(root)
        scaled = [
            (transform(image) * 128 + 127).round().clamp(0, 255).to(torch.uint8) for image in images.images
        ]
        labels = {f"label_{task}": values for task, values in images.labels.items()}
        halves = np.random.default_rng(crc32(name.encode())).permutation(len(scaled)) % 2
        side = np.where(images.test, 2, halves).astype(np.uint8)
        save(path, images=torch.stack(scaled).numpy(), side=side, **labels)
    with np.load(path) as file:
        labels = {key.removeprefix("label_"): file[key] for key in file.files if key.startswith("label_")}
        return Pixels(torch.from_numpy(file["images"]), file["side"], labels)


def draw(task: str, labels: Labels, side: NDArray[np.uint8], number: int) -> NDArray[np.int64]:
    """Positions of the images of a few-shot draw, class by class; draws share none while there are enough."""
    classes = int(labels.max()) + 1
    shots = max(SHOTS, -(-LEAST // classes))
    chosen = []
    for label in range(classes):
        pool = np.flatnonzero((labels == label) & (side == 1))
        order = np.random.default_rng([crc32(task.encode()), label]).permutation(pool)
        wanted = min(shots, len(pool))
        chosen.append(order[(np.arange(wanted) + number * wanted) % len(pool)])
    return np.concatenate(chosen)


def learned(labels: Labels, side: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Positions of the images that the expert of a task learns from."""
    return np.flatnonzero((side == 0) & (labels != OUTSIDE))


def tested(labels: Labels, side: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Positions of the test images of a task."""
    return np.flatnonzero((side == 2) & (labels != OUTSIDE))


def save(path: Path, **arrays: NDArray[np.generic]) -> None:
    """An .npz file that is there whole or not at all."""
    with whole_file(path) as part, open(part, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
