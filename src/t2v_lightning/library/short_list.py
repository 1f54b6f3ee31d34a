"""Experts that are run on the new task itself: few of them, whose best promises most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from t2v_lightning.functional.transferability import probe_accuracy
from t2v_lightning.library.evidence import Matrix

LabelledFeatures = tuple[ArrayLike, ArrayLike]
"""Features [N, P] of images, and their labels [N]."""
FeaturesOf = Callable[[str], LabelledFeatures | None]
"""From the name of an expert to what it makes of the task's images; None where it cannot be run."""

PENALTY = 1e-3
"""Of the head, as in `measure`."""

REPEATS, DEALT = 5, 1000
"""How often images are dealt out to folds at most, and how many of them in all: of many a deal changes little."""


def promising(samples: Matrix) -> Iterator[int]:
    r"""Positions of experts, one after another, each so that the best of those so far promises the least error.

    After :math:`j_1 \dots j_n` comes the j of least :math:`\mathbb{E} \min(e_{j_1}, \dots, e_{j_n}, e_j)`: not the
    twin of an expert that is there already, but one that may be good where these are not. The gain of a greedy list
    over an error of 100 % is at least :math:`1 - 1/e` of that of the best list as long, as it is submodular
    (Nemhauser, Wolsey and Fisher, *An Analysis of Approximations for Maximizing Submodular Set Functions*, 1978).

    Args:
        samples: float64 [S, E], errors that are as likely as each other.

    >>> twins = np.array([[10.0, 11.0, 30.0], [40.0, 41.0, 35.0]])
    >>> list(promising(twins))
    [0, 2, 1]
    """
    left, means = list(range(samples.shape[1])), samples.mean(0)
    least = np.full((len(samples), 1), np.inf)
    while left:
        expected = np.minimum(least, samples[:, left]).mean(0)
        best = left[np.lexsort((means[left], expected.round(9)))[0]]
        least = np.minimum(least, samples[:, [best]])
        left.remove(best)
        yield best


def error_of(features: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Cross-validated error in percent of a linear head on features [N, P], and its standard error in points.

    >>> x = np.array([[1.0, 0.1], [0.9, -0.2], [-1.1, 0.0], [-0.8, 0.1]])
    >>> error, stderr = error_of(x, [0, 0, 1, 1])
    >>> error, round(stderr, 1)
    (0.0, 18.6)
    """
    count = len(np.asarray(labels))
    repeats = min(max(DEALT // max(count, 1), 1), REPEATS)
    share = 1 - probe_accuracy(features, labels, repeats=repeats, penalty=PENALTY)
    return 100 * share, stderr_of(share, count)


def stderr_of(share: float, count: int) -> float:
    """Standard error in points of a share of wrong answers among so many, as if there was one more of each outcome.

    So that no error counts as exactly known.

    >>> round(stderr_of(0.0, 4), 1)
    18.6
    """
    likely = (count * share + 1) / (count + 2)
    return 100 * math.sqrt(likely * (1 - likely) / count)


def try_experts(order: Iterable[str], features: FeaturesOf, run: int) -> dict[str, tuple[float, float]]:
    """The first experts that can be run, with their errors and standard errors.

    Args:
        order: names, in which they are run.
        features: called for one after another.
        run: how many are run at most.

    Raises:
        ValueError: none can be run.

    >>> good = [[0.0], [1.0], [0.1], [0.9]], [0, 1, 0, 1]
    >>> list(try_experts(["a", "b", "c", "d"], {"b": good, "c": good, "d": good}.get, run=2))
    ['b', 'c']
    """
    found: dict[str, tuple[float, float]] = {}
    asked = []
    for expert in order:
        asked.append(expert)
        made = features(expert)
        if made is not None:
            found[expert] = error_of(*made)
        if len(found) == run:
            break
    if not found:
        raise ValueError(
            f"none of the experts can be run: {', '.join(asked)}; say how to make them, or take another method"
        )
    return found
