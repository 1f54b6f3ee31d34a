"""Tasks on the same images with other labels: can a description tell them apart, and does it matter for advice?

Both questions are asked of draws of a group of tasks that share their images. A draw i of a task is compared with draws
j of all tasks of the group, j not i:

- told: how often the draw of the same task is nearer than that of another one. What sees images alone is right half
  of the time, but for chance differences of the draws and for classes that are weighted alike, however many images they
  have;
- regret: points lost by the expert that is best for the task of the nearest draw. Experts of the group do not count.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selection.replicate import Replicate
from t2v_lightning.library.neighbours import feature_distances, task2vec_distances

GROUPS: tuple[tuple[str, ...], ...] = (
    ("digits", "digits_odd_even"),
    ("mnist", "mnist_odd_even"),
    ("faces_turned", "faces_lying"),
    ("fashion", "fashion_kind", "fashion_odd_even"),
    ("glyphs_letter", "glyphs_font", "glyphs_case"),
    ("numerals", "numerals_odd_even"),
    ("emoji_twitter_category", "emoji_twitter_person"),
    ("emoji_google_category", "emoji_google_person"),
    ("icons_kind", "icons_theme"),
    ("stamps", "stamps_made"),
    ("units_race", "units_act"),
)
DESCRIPTIONS = ("cosine", "cosine_unit", "features")


class Told(NamedTuple):
    """Of one group and one description: means over draws and tasks."""

    told: float
    regret: float


def distances(replicates: Sequence[Replicate], group: Sequence[str], name: str) -> NDArray[np.float64]:
    """[tasks, draws, tasks, draws] between draws of the tasks of a group."""
    rows = [list(replicates[0].tasks).index(task) for task in group]
    kind = "mean_features" if name == "features" else "fisher"
    vectors = np.stack([getattr(r, kind)[rows] for r in replicates], axis=1)
    flat = vectors.reshape(-1, vectors.shape[-1])
    found = feature_distances(flat, flat) if name == "features" else task2vec_distances(flat, flat, name)
    return found.reshape(*vectors.shape[:2], *vectors.shape[:2])


def told_apart(d: NDArray[np.float64]) -> float:
    """Share of triples (draw, another draw of its task, that draw of another task) in the right order.

    >>> told_apart(np.abs(np.subtract.outer([0.0, 1.0, 5.0, 6.0], [0.0, 1.0, 5.0, 6.0])).reshape(2, 2, 2, 2))
    1.0
    """
    tasks, draws = d.shape[:2]
    right = [
        (d[a, i, a, j] < d[a, i, b, j]) + 0.5 * (d[a, i, a, j] == d[a, i, b, j])
        for a in range(tasks)
        for b in range(tasks)
        for i in range(draws)
        for j in range(draws)
        if a != b and i != j
    ]
    return float(np.mean(right))


def regret_of_nearest(d: NDArray[np.float64], errors: NDArray[np.float64]) -> float:
    """Mean points lost, for errors [tasks, experts]."""
    tasks, draws = d.shape[:2]
    lost = []
    for a in range(tasks):
        for i in range(draws):
            for j in range(draws):
                if i != j:
                    nearest = int(d[a, i, :, j].argmin())
                    lost.append(errors[a, errors[nearest].argmin()] - errors[a].min())
    return float(np.mean(lost))


def ask(replicates: Sequence[Replicate]) -> Mapping[tuple[str, ...], Mapping[str, Told]]:
    """Every group by every description; `replicates` have draws of their own; errors are of the first one's experts."""
    first = replicates[0]
    found = {}
    for group in (g for g in GROUPS if set(g) <= set(first.tasks)):
        rows = [list(first.tasks).index(task) for task in group]
        family = first.families[rows[0]]
        others = [
            j
            for j, name in enumerate(first.experts)
            if name not in first.tasks or first.families[list(first.tasks).index(name)] != family
        ]
        errors = first.errors[np.ix_(rows, others)]
        told = {}
        for name in DESCRIPTIONS:
            d = distances(replicates, group, name)
            told[name] = Told(told_apart(d), regret_of_nearest(d, errors))
        advised = errors[:, errors.argmin(1)]  # [tasks, tasks]: the best expert of another task of the group
        chance = np.mean(advised - errors.min(1, keepdims=True))
        told["chance"] = Told(0.5, float(chance))
        found[group] = told
    return found
