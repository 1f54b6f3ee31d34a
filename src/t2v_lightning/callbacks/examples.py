"""A few images of a task with their labels, as its probe sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.selection import Selection
from t2v_lightning.plots.style import INK

_LINE = 15
"""Characters on a line of a label, which has two lines at most."""

_CELL = 0.87
"""Side of an image in inches: TensorBoard shows four side by side without scaling, which it does crudely."""

_ROUNDING = 0.02


@dataclass(frozen=True)
class Example:
    """An image of a task.

    Attributes:
        picture: grey or RGB.
        label: the name of its class, of its labels, or its numbers.
    """

    picture: Image.Image
    label: str


def read_examples(
    dataset: IndexedDataset, task: Selection, class_names: Sequence[str] | None = None, count: int = 16
) -> list[Example]:
    """Up to `count` images of a task, class by class, the same each time; none if its inputs are not images.

    The random numbers of the run are unaffected.

    Args:
        dataset: the images by their position.
        task: which images, with which targets.
        class_names: None takes those of the dataset, or the numbers of the classes.
        count: at least 1.
    """
    positions = choose_examples(task.strata, count)
    with isolate_rng():
        images = [dataset[position][0] for position in positions]
    if not all(isinstance(image, Tensor) and image.dim() == 3 for image in images):
        return []
    names = class_names or getattr(dataset.dataset, "classes", None) or []
    labels = [label_of(task, position, names) for position in positions]
    return [Example(*pair) for pair in zip(as_pictures(images, dataset.transform), labels, strict=True)]


def choose_examples(strata: Tensor, count: int = 16) -> list[int]:
    """Positions of at most `count` items of n, as many of each stratum as fit, spread over it.

    Args:
        strata: int64 [n], the stratum of each item.
        count: at least 1.

    >>> choose_examples(torch.tensor([1, 0, 1, 1, 0, 1]), 4)
    [1, 4, 0, 3]
    """
    order = strata.argsort(stable=True)
    groups = order.split(torch.unique_consecutive(strata[order], return_counts=True)[1].tolist())
    groups = [groups[i] for i in _spread(len(groups), count)]
    return [int(group[i]) for group in groups for i in _spread(len(group), count // len(groups))]


def label_of(selection: Selection, position: int, names: Sequence[str] = ()) -> str:
    """The label of the image at a position, by the names of the classes where they are known; "" for none."""
    labels = selection.classes or range(selection.num_classes)
    likelihood = get_likelihood(selection.likelihood)
    if likelihood.of_inputs:
        return ""
    outputs = [str(names[label]) if 0 <= label < len(names) else str(label) for label in labels]
    return likelihood.describe_target(selection.targets[position], outputs)


def as_pictures(images: Sequence[Tensor], transform: Any = None) -> list[Image.Image]:
    """Pictures of float images [C, H, W] however they were normalised.

    Images within [0, 1] are not changed. Where undoing the transform's `mean` and `std` brings them there, that is
    done; others are stretched, together, from their smallest to their largest value.

    >>> [picture.getpixel((0, 0)) for picture in as_pictures([torch.zeros(1, 2, 2), torch.full((3, 2, 2), 2.0)])]
    [0, (255, 255, 255)]
    """
    images = [image.detach().float() for image in images]
    low, high = _range(images)
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        images = _unnormalised(images, transform) or [(x - low) / max(high - low, 1e-30) for x in images]
    return [_picture(image) for image in images]


def plot_examples(examples: Sequence[Example]) -> Figure:
    """A grid of images with their labels above them."""
    columns = ceil(sqrt(len(examples)))
    rows = ceil(len(examples) / columns)
    labels = [_lines(example.label) for example in examples]
    above = 0.13 * max(label.count("\n") + 1 for label in labels)
    figure = Figure(figsize=(_CELL * columns, (_CELL + above) * rows))
    for number, (example, label) in enumerate(zip(examples, labels, strict=True)):
        ax = figure.add_subplot(rows, columns, number + 1)
        ax.imshow(example.picture, cmap="gray", vmin=0, vmax=255)
        ax.set_axis_off()
        ax.set_title(label, fontsize=7, color=INK, pad=2)
    top = 1 - above / (_CELL + above) / rows
    figure.subplots_adjust(0.01, 0.01, 0.99, top, wspace=0.06, hspace=0.06 + above / _CELL)
    return figure


def mosaic(examples: Sequence[Example], side: int = 96) -> Image.Image:
    """One square RGB picture of four of the examples, `side` pixels wide: what a task looks like on a map of tasks."""
    chosen = [examples[i] for i in _spread(len(examples), 4)]
    across = 1 if len(chosen) < 4 else 2
    part = side // across
    whole = Image.new("RGB", (side, side), "white")
    for number, example in enumerate(chosen[: across**2]):
        tile = ImageOps.fit(example.picture.convert("RGB"), (part, part))
        whole.paste(tile, (number % across * part, number // across * part))
    return whole


def _spread(length: int, count: int) -> list[int]:
    """At most `count` numbers of 0..length-1, evenly spaced."""
    count = min(length, count)
    return [i * length // count for i in range(count)]


def _range(images: Sequence[Tensor]) -> tuple[float, float]:
    return min(float(image.min()) for image in images), max(float(image.max()) for image in images)


def _unnormalised(images: Sequence[Tensor], transform: Any) -> list[Tensor] | None:
    mean, std = (getattr(transform, name, ()) for name in ("mean", "std"))
    if any(len(image) != len(mean) or len(image) != len(std) for image in images):
        return None
    m, s = (torch.tensor(numbers)[:, None, None] for numbers in (mean, std))
    found = [image * s + m for image in images]
    low, high = _range(found)
    return found if low >= -_ROUNDING and high <= 1 + _ROUNDING else None


def _picture(image: Tensor) -> Image.Image:
    if len(image) not in (1, 3):
        image = image.mean(0, keepdim=True)
    values = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(values.squeeze(2) if values.shape[2] == 1 else values))


def _lines(label: str) -> str:
    """A label on two lines at most, in which no `$` starts a formula."""
    lines = wrap(label, _LINE, max_lines=2, placeholder="…") or [""]
    return "\n".join(lines).replace("$", r"\$")
