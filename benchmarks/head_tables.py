"""The tables of `heads.py`, with standard errors over tasks by the bootstrap.

Columns are

- rank correlations of the norm with the test error over all tasks, over those with right labels, and over those with
  some wrong ones, means over seeds, and the difference of the first from that of adam;
- spread: the standard deviation of the log norm between seeds of one task, as a share of that between tasks;
- apart: how far vectors of two seeds of one task are apart, as the standard error of one of them relative to its length
  (root mean square over tasks); what is reported for the head that was found; `relative_stderr`, where it has the head
  fitted anew; and the ratio of the last of these to what is measured.

And for each distance

- how often a pair of tasks within a family is nearer than one across, and how often two seeds of one task are nearer
  than either is to another task, with the differences from adam;
- the rank correlation of the distance with the difference of log norms;
- the mean distance of two seeds of one task, and what the noise floor says of it;
- the standard error of distances of different tasks: between seeds (root mean square), and as `pdist` reports it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from head_tasks import Plan
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from t2v_lightning.functional.distances import noise_floor, pdist

Array = NDArray[np.float64]
DISTANCES = ("cosine", "cosine_unit")
DRAWS = 200


class Vector:
    """An embedding as the distances need it."""

    def __init__(self, sums: Array, weights: Array) -> None:
        self.group_sums, self.group_weights = sums.astype(np.float64), weights
        self.fisher = self.group_sums.sum(0) / weights.sum()


class Results:
    """What was measured, as arrays [tasks, seeds]."""

    def __init__(self, plans: Sequence[Plan], found: list[list[dict[str, Any]]]) -> None:
        self.found, self.seeds = found, np.arange(len(found[0]))
        self.rows = [key.removesuffix(" doubt") for key in found[0][0] if key.endswith(" doubt")]
        self.families = np.array([plan.family for plan in plans])
        self.wrong = np.array([plan.wrong > 0 for plan in plans])
        self.tasks = np.arange(len(plans))

    def figure(self, key: str) -> Array:
        return np.array([[float(seed[key]) for seed in task] for task in self.found])

    def vectors(self, row: str) -> list[Vector]:
        """Tasks after one another."""
        return [Vector(s[f"{row} groups"], s[f"{row} weights"]) for task in self.found for s in task]

    def fishers(self, row: str) -> Array:
        """[tasks, seeds, D]"""
        return np.array([v.fisher for v in self.vectors(row)]).reshape(*self.figure(f"{row} error").shape, -1)


def over_tasks(statistic: Callable[[Array], float], tasks: Array) -> Array:
    """Of the tasks, and of draws of as many of them: [1 + DRAWS]."""
    generator = np.random.default_rng(0)
    draws = [tasks, *(generator.choice(tasks, len(tasks)) for _ in range(DRAWS))]
    return np.array([statistic(draw) for draw in draws])


def shown(values: Array, digits: int = 2) -> str:
    return f"{values[0]:.{digits}f} +- {np.nanstd(values[1:]):.{digits}f}"


def print_tables(plans: Sequence[Plan], found: list[list[dict[str, Any]]]) -> None:
    results = Results(plans, found)
    print(f"{len(plans)} tasks, {len(found[0])} seeds\n")
    _print_norms(results)
    for distance in DISTANCES:
        _print_distances(results, distance)


def _print_norms(results: Results) -> None:
    print(
        f"{'norm':19s}"
        + "".join(f"{head:>16s}" for head in ("all", "less adam", "right labels", "some wrong"))
        + f"{'error':>8s}{'spread':>8s}{'apart':>8s}{'one head':>10s}{'anew':>8s}{'ratio':>16s}"
    )
    first = np.zeros(1)
    for row in (*results.rows, *(f"{row} doubt" for row in results.rows)):
        doubt = row.endswith(" doubt")
        norms = results.figure(row) if doubt else np.linalg.norm(results.fishers(row), axis=2)
        error = results.figure(f"{row.removesuffix(' doubt')} error")

        def agreement(draw: Array, norms: Array = norms, error: Array = error) -> float:
            pairs = zip(norms[draw].T, error[draw].T, strict=True)
            return float(np.mean([spearmanr(a, b).statistic for a, b in pairs]))

        every = over_tasks(agreement, results.tasks)
        first = first if first.any() else every
        parts = [over_tasks(agreement, results.tasks[which]) for which in (~results.wrong, results.wrong)]
        logs = np.log(norms)
        spread = np.sqrt(logs.var(1, ddof=1).mean()) / logs.mean(1).std(ddof=1)
        cells = "".join(f"{shown(cell):>16s}" for cell in (every, every - first, *parts))
        print(f"{row:19s}{cells}{error.mean():8.3f}{spread:8.2f}{'' if doubt else _of_stderr(results, row)}")


def _of_stderr(results: Results, row: str) -> str:
    fishers = results.fishers(row)
    length = np.square(fishers.mean(1)).sum(1)
    apart = fishers.var(1, ddof=1).sum(1) / length
    fixed, anew = (np.square(results.figure(f"{row} {key}")).mean(1) / length for key in ("fixed", "anew"))
    ratio = over_tasks(lambda draw: float(np.sqrt(anew[draw].mean() / apart[draw].mean())), results.tasks)
    cells = [float(np.sqrt(squared.mean())) for squared in (apart, fixed, anew)]
    return f"{cells[0]:8.3f}{cells[1]:10.3f}{cells[2]:8.3f}{shown(ratio):>16s}"


def _print_distances(results: Results, distance: str) -> None:
    print(
        f"\n{distance:13s}"
        + "".join(f"{head:>18s}" for head in ("within family", "less adam", "seeds", "less adam"))
        + f"{'difficulty':>12s}{'own':>8s}{'floor':>8s}{'ratio':>16s}{'moves':>9s}{'stderr':>8s}"
    )
    tasks, seeds, families = results.tasks, results.seeds, results.families
    shape = (len(tasks), len(seeds))
    upper = np.triu_indices(len(tasks), 1)
    first: list[Array] = []
    for row in results.rows:
        vectors = results.vectors(row)
        d = pdist(vectors, distance=distance).reshape(*shape, *shape)
        own = np.array([d[t, a, t, b] for t in tasks for a in seeds for b in seeds if a < b]).reshape(
            shape[0], -1
        )
        of_seeds = [pdist(vectors[seed :: shape[1]], distance=distance, return_stderr=True) for seed in seeds]
        same_seed = np.stack([pairs for pairs, _ in of_seeds])

        def grouped(draw: Array, same_seed: Array = same_seed) -> float:
            draw = np.unique(draw)  # a task is not in a family with itself
            i, j = (draw[part] for part in np.triu_indices(len(draw), 1))
            same = families[i] == families[j]
            return float(np.mean([_auc(m[i, j][same], m[i, j][~same]) for m in same_seed]))

        others = d.transpose(0, 2, 1, 3).reshape(*shape[:1], shape[0], -1)  # [tasks, tasks, pairs of seeds]
        nearer = np.array([(own[t].mean() < np.delete(others[t], t, 0)).mean() for t in tasks])
        logs = np.log(np.linalg.norm(results.fishers(row), axis=2))
        apart = np.abs(logs[upper[0]] - logs[upper[1]])
        related = np.mean([spearmanr(m[upper], apart[:, s]).statistic for s, m in enumerate(same_seed)])
        floor = noise_floor(vectors, distance).reshape(shape).mean(1)
        cells = [over_tasks(grouped, tasks), over_tasks(lambda draw, n=nearer: float(n[draw].mean()), tasks)]
        first = first or cells
        ratio = over_tasks(lambda draw, f=floor, o=own: float(f[draw].mean() / o[draw].mean()), tasks)
        moves = np.sqrt(same_seed.var(0, ddof=1)[upper].mean())
        stated = np.sqrt(np.mean([np.square(stderr[upper]).mean() for _, stderr in of_seeds]))
        shares = [part for cell, adam in zip(cells, first, strict=True) for part in (cell, cell - adam)]
        print(
            f"{row:13s}{''.join(f'{shown(cell, 3):>18s}' for cell in shares)}{related:12.2f}{own.mean():8.3f}"
            f"{floor.mean():8.3f}{shown(ratio):>16s}{moves:9.4f}{stated:8.4f}"
        )


def _auc(near: Array, far: Array) -> float:
    """How often one of `near` is below one of `far`."""
    ranks = rankdata(np.concatenate([near, far]))[: len(near)]
    return float(1 - (ranks.mean() - (len(near) + 1) / 2) / len(far))
