"""Transforms that change images at random, which an embedding should not see."""

import logging
from collections.abc import Iterator
from typing import Any

log = logging.getLogger(__name__)

_RANDOM = (
    "Random",
    "AugMix",
    "ColorJitter",
    "GaussianBlur",
    "GaussianNoise",
    "ElasticTransform",
    "ScaleJitter",
)


def warn_random_transforms(dataset: Any) -> None:
    """Warns when a dataset changes its images at random: an embedding should see each image as it is."""
    found = sorted({type(t).__name__ for t in _transforms(dataset)})
    random = [name for name in found if name.startswith(_RANDOM) or "Augment" in name]
    if random:
        log.warning(
            "the dataset's transform is random (%s), so the embedding will differ from run to run; pass the "
            "evaluation transform instead",
            ", ".join(random),
        )


def _transforms(holder: Any) -> Iterator[Any]:
    """All transforms of a dataset, also of the datasets inside it and of the transforms inside those."""
    parts = [getattr(holder, "dataset", None), getattr(holder, "transform", None)]
    for name in ("datasets", "transforms"):
        several = getattr(holder, name, None)
        parts += several if isinstance(several, (list, tuple)) else []
    for part in parts:
        if part is not None:
            yield part
            yield from _transforms(part)
