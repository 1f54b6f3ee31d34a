"""How well a library would have advised on its own tasks, each left out in turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2v_lightning.library.evidence import Matrix, Vector
from t2v_lightning.library.leave_one_out import Residuals
from t2v_lightning.library.protocol import Protocol
from t2v_lightning.library.rehearsal import Rehearsal
from t2v_lightning.library.task_library import TaskLibrary

DRAWS = 5
"""Parts of a library of each size."""

_SMALLEST = 4


@dataclass(frozen=True)
class Review:
    """Errors, and regrets in points: by how much the expert advised is worse than the best.

    Attributes:
        tasks: names of L tasks that have results.
        experts: names of E experts that have results on tasks other than their own.
        families: of the tasks; empty where unknown.
        errors: float64 [L, E], in percent; NaN where unknown.
        regrets: float64 [R] by method (`chance`, `static`, `library`), with each task left out.
        by_family: the same with the whole family of each task left out; empty where there is one family.
        sizes: numbers of tasks of smaller libraries.
        by_size: float64 [sizes, DRAWS] by method: mean regret with each task left out, of parts drawn at random.
    """

    tasks: list[str]
    experts: list[str]
    families: list[str]
    errors: Matrix
    regrets: dict[str, Vector]
    by_family: dict[str, Vector]
    sizes: list[int]
    by_size: dict[str, Matrix]


def review(library: TaskLibrary, protocol: Protocol | None = None, distance: str = "cosine") -> Review:
    """Asks a library about its own tasks.

    Args:
        library: of several tasks with results.
        protocol: of the results; None where the library has one only.
        distance: `cosine` or `cosine_unit`.

    Raises:
        ValueError: there are no results of the protocol, or several protocols and none is asked for.

    >>> from t2v_lightning.embedding import Embedding
    >>> library = TaskLibrary()
    >>> for n, best in enumerate("abab"):
    ...     errors = {name: 10.0 if name == best else 20.0 for name in "ab"}
    ...     library.add(Embedding([1.0 + n % 2, 2.0], [1, 1]), errors, name=str(n))
    >>> {name: float(regrets.mean()) for name, regrets in review(library).regrets.items()}
    {'chance': 5.0, 'static': 10.0, 'library': 0.0}
    """
    desk = library.desk(protocol, distance)
    rehearsal, evidence = desk.adviser.rehearsal, desk.adviser.evidence
    known = library.families
    several = len(np.unique(evidence.families)) > 1 and len(np.unique(evidence.families)) < len(evidence)
    sizes = [n for n in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128) if _SMALLEST <= n < len(evidence)]
    rng = np.random.default_rng(0)
    means: dict[str, list[list[float]]] = {name: [] for name in ("chance", "static", "library")}
    for size in sizes:
        rows: dict[str, list[float]] = {name: [] for name in means}
        for _ in range(DRAWS):
            kept = np.zeros(len(evidence), bool)
            kept[rng.choice(len(evidence), size, replace=False)] = True
            features = desk.adviser.mean_features
            part = Rehearsal(evidence.only(kept), None if features is None else features[kept], distance)
            for name, found in _regrets(part, by_family=False).items():
                rows[name].append(float(found.mean()) if found.size else float("nan"))
        for name, row in rows.items():
            means[name].append(row)
    return Review(
        desk.tasks,
        desk.experts,
        [known[task] for task in desk.tasks],
        evidence.errors,
        _regrets(rehearsal, by_family=False),
        _regrets(rehearsal, by_family=True) if several else {},
        sizes,
        {name: np.array(rows).reshape(len(sizes), DRAWS) for name, rows in means.items()},
    )


def _regrets(rehearsal: Rehearsal, by_family: bool) -> dict[str, Vector]:
    static = rehearsal.wrong("static", by_family, True)[0]
    found = {"chance": _by_chance(static), "static": static.regrets}
    return found | {"library": rehearsal.wrong("library", by_family, True)[0].regrets}


def _by_chance(found: Residuals) -> Vector:
    """What an expert drawn at random loses on average."""
    truth = found.predicted + found.effects
    if not len(truth):
        return np.empty(0)
    return np.asarray(np.nanmean(truth, axis=1) - np.nanmin(truth, axis=1))
