"""A warning about transforms that change images at random."""

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
    """Logs a warning if a dataset changes its images at random, as the embedding then depends on chance."""
    found = sorted({type(t).__name__ for t in _transforms(dataset)})
    random = [name for name in found if name.startswith(_RANDOM) or "Augment" in name]
    if random:
        log.warning(
            "the dataset's transform is random (%s), so the embedding will differ from run to run; pass the "
            "evaluation transform instead",
            ", ".join(random),
        )


def _transforms(holder: Any) -> Iterator[Any]:
    """All transforms of a dataset and of the datasets inside it, and the transforms that these are composed of."""
    parts = [getattr(holder, "dataset", None), getattr(holder, "transform", None)]
    for name in ("datasets", "transforms"):
        several = getattr(holder, name, None)
        parts += several if isinstance(several, (list, tuple)) else []
    for part in parts:
        if part is not None:
            yield part
            yield from _transforms(part)
