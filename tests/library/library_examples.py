"""Small libraries whose tasks and experts are drawn from a few hidden traits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_lightning import Embedding
from t2v_lightning.library import TaskLibrary

Array = NDArray[np.float64]


class World:
    """Tasks of families; errors of experts and Fisher entries both follow from a task's traits.

    Args:
        seed: of all draws.
        spread: of the traits within a family, where families are 1 apart.
        noise: standard deviation of errors in points.
    """

    def __init__(self, seed: int = 0, spread: float = 0.4, noise: float = 1.0, experts: int = 12) -> None:
        self.rng = np.random.default_rng(seed)
        self.spread, self.noise = spread, noise
        self.of_entries, self.of_features = self.rng.normal(size=(4, 200)), self.rng.normal(size=(4, 20))
        self.of_experts, self.base = 3 * self.rng.normal(size=(4, experts)), 3 * self.rng.normal(size=experts)

    def family(self) -> Array:
        return self.rng.normal(size=4)

    def task(self, family: Array, name: str, of: str, **meta: Any) -> tuple[Embedding, Array]:
        """An embedding, and the errors of all experts."""
        rng = self.rng
        traits = family + self.spread * rng.normal(size=4)
        fisher = np.exp(0.5 * traits @ self.of_entries)
        sums = fisher * np.exp(0.2 * rng.normal(size=(16, len(fisher))))
        errors = 35 + 4 * rng.normal() + self.base + traits @ self.of_experts
        embedding = Embedding(
            sums.mean(0),
            np.ones(len(fisher)),
            group_sums=sums,
            group_weights=np.ones(16),
            mean_features=3 + traits @ self.of_features,
            meta={"task_name": name, "family": of, "method": "montecarlo", "probe": "small", **meta},
        )
        return embedding, (errors + self.noise * rng.normal(size=len(errors))).clip(0, 100)

    def library(
        self, families: int = 5, tasks: int = 4, filled: float = 0.8
    ) -> tuple[TaskLibrary, list[Array]]:
        """A library and the centres of its families."""
        library, centres = TaskLibrary(), [self.family() for _ in range(families)]
        for number, centre in enumerate(centres):
            for place in range(tasks):
                embedding, errors = self.task(centre, f"task {number}.{place}", f"family {number}")
                library.add(embedding, named(errors, self.rng.random(len(errors)) < filled))
        return library, centres


def named(errors: Array, kept: Any = None) -> dict[str, float]:
    known = np.ones(len(errors), bool) if kept is None else kept
    return {f"expert {j}": float(error) for j, error in enumerate(errors) if known[j]}


def bare(fisher: list[float], **meta: Any) -> Embedding:
    return Embedding(fisher, np.ones(len(fisher)), meta=meta)


def animals() -> TaskLibrary:
    """Three tasks of two families, two experts."""
    library = TaskLibrary()
    library.add(bare([4.0, 1.0]), {"resnet": 10.0, "vit": 20.0}, name="birds", family="animals")
    library.add(bare([1.0, 4.0]), {"resnet": 35.0, "vit": 15.0}, name="digits", family="signs")
    library.add(bare([4.0, 2.0]), {"resnet": 15.0, "vit": 25.0}, name="dogs", family="animals")
    return library
