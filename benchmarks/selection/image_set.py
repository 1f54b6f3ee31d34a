"""Images of one source, with every way to label them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Labels = NDArray[np.int64]
OUTSIDE = -1


class Labelled(NamedTuple):
    """An image, what is known of it, and the name that decides whether it is for training or for testing.

    Images with one group name stay on one side: frames of one animation, letters of one font.
    """

    image: Image.Image
    facts: Mapping[str, Any]
    group: str


@dataclass(frozen=True)
class ImageSet:
    """Images and the tasks that they are used in.

    Attributes:
        images: N pictures.
        test: bool [N].
        labels: for each task int64 [N], -1 for an image that is not part of it.
    """

    images: Sequence[Image.Image]
    test: NDArray[np.bool_]
    labels: Mapping[str, Labels]


def labels_of(values: Sequence[Any]) -> Labels:
    """Numbers for values in sorted order; None is outside.

    >>> labels_of(["b", None, "a"]).tolist()
    [1, -1, 0]
    """
    names = sorted({value for value in values if value is not None})
    return np.array([OUTSIDE if value is None else names.index(value) for value in values])


def subset(labels: Labels, wanted: Sequence[int]) -> Labels:
    """Labels 0, 1, ... of the wanted classes, -1 of others.

    >>> subset(np.array([3, 5, 7]), [7, 3]).tolist()
    [1, -1, 0]
    """
    return np.array([wanted.index(label) if label in wanted else OUTSIDE for label in labels.tolist()])


def split_by_group(
    items: Sequence[Labelled], tasks: Sequence[str], most_test: int, third: int = 3
) -> ImageSet:
    """One of `third` groups is for testing, chosen by a hash of its name; of their images `most_test` are kept.

    Of images that are the same, pixel by pixel, only the first stays, so that none is on both sides.
    """
    seen: set[tuple[tuple[int, int], bytes]] = set()
    kept: list[Labelled] = []
    for item in sorted(items, key=lambda item: crc32(f"order {item.group}".encode())):
        key = (item.image.size, item.image.tobytes())
        if key not in seen:
            seen.add(key)
            kept.append(item)
    sides = np.array([crc32(f"side {item.group}".encode()) % third == 0 for item in kept])
    tests = np.flatnonzero(sides)
    chosen = np.random.default_rng(0).permutation(tests)[:most_test]
    sides[tests], use = False, ~sides
    sides[chosen], use[chosen] = True, True
    where = np.flatnonzero(use)
    facts = {task: [kept[i].facts[task] for i in where] for task in tasks}
    return ImageSet(
        [kept[i].image for i in where], sides[where], {task: labels_of(v) for task, v in facts.items()}
    )


def on_white(image: Image.Image, side: int = 128, margin: float = 0.06) -> Image.Image:
    """A square picture on white, with room around it that the probe's central crop takes away."""
    room = round(side * (1 - 2 * margin))
    image = image.convert("RGBA")
    image.thumbnail((room, room), Image.Resampling.BICUBIC)
    scale = room / max(image.size)
    if scale > 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    page = Image.new("RGB", (side, side), "white")
    page.paste(image, ((side - image.width) // 2, (side - image.height) // 2), image)
    return page
