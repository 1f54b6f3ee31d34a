"""Experts that are run on the new task itself: few of them, those that promise most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from t2v_lightning.functional.transferability import probe_accuracy

LabelledFeatures = tuple[ArrayLike, ArrayLike]
"""Features [N, P] of images, and their labels [N]."""
FeaturesOf = Callable[[str], LabelledFeatures | None]
"""From the name of an expert to what it makes of the task's images; None where it cannot be run."""

PENALTY = 1e-3
"""Of the head, as in `measure`."""


def error_of(features: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Cross-validated error in percent of a linear head on features [N, P], and its standard error in points.

    >>> x = np.array([[1.0, 0.1], [0.9, -0.2], [-1.1, 0.0], [-0.8, 0.1]])
    >>> error, stderr = error_of(x, [0, 0, 1, 1])
    >>> error, round(stderr, 1)
    (0.0, 18.6)
    """
    share = 1 - probe_accuracy(features, labels, penalty=PENALTY)
    return 100 * share, stderr_of(share, len(np.asarray(labels)))


def stderr_of(share: float, count: int) -> float:
    """Standard error in points of a share of wrong answers among so many, as if there was one more of each outcome.

    So that no error counts as exactly known.

    >>> round(stderr_of(0.0, 4), 1)
    18.6
    """
    likely = (count * share + 1) / (count + 2)
    return 100 * math.sqrt(likely * (1 - likely) / count)


def try_experts(order: Sequence[str], features: FeaturesOf, run: int) -> dict[str, tuple[float, float]]:
    """The first experts that can be run, with their errors and standard errors.

    Args:
        order: names, the most promising first.
        features: called for one after another.
        run: how many are run at most.

    Raises:
        ValueError: none can be run.

    >>> good = [[0.0], [1.0], [0.1], [0.9]], [0, 1, 0, 1]
    >>> list(try_experts(["a", "b", "c", "d"], {"b": good, "c": good, "d": good}.get, run=2))
    ['b', 'c']
    """
    found: dict[str, tuple[float, float]] = {}
    for expert in order:
        made = features(expert)
        if made is not None:
            found[expert] = error_of(*made)
        if len(found) == run:
            break
    if not found:
        raise ValueError(
            f"none of the experts can be run: {', '.join(order)}; say how to make them, or take another method"
        )
    return found
