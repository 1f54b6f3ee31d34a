"""Distances of tasks to draw."""

import numpy as np
from scipy.spatial.distance import pdist, squareform


def tasks(count: int, families: int = 3) -> tuple[np.ndarray, list[str], list[str]]:
    """Distances of tasks that lie around the centres of their families."""
    generator = np.random.default_rng(count)
    family = np.sort(np.arange(count) % families)[generator.permutation(count)]
    points = generator.normal(0, 10, (families, 4))[family] + generator.normal(0, 1, (count, 4))
    names = [f"task {chr(97 + f)} number {i}" for i, f in enumerate(family)]
    return squareform(pdist(points)), names, [f"family {chr(97 + f)}" for f in family]
