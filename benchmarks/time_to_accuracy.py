"""Seconds until the embedding of a 2,000-image task is within 5 % (relative L2) of `exact` over those images.

    python benchmarks/time_to_accuracy.py [--images 2000] [--size 64] [--error 0.05] [--budget 60] [--seeds 3]

Ours (`sampling="sign"`, images in their stratified order, pass after pass) against the reference implementation's
estimator (`fitted.ReferenceEstimator`), on the same probe with the same fitted head. Images lie in memory, so that
only arithmetic is timed, in CPU time on a CPU; comparing with `exact` is not counted. A method is there once its
error stays below the mark. What is not there within the budget is extrapolated by its own law error = c / sqrt(draws),
c^2 being the mean of error^2 * draws over the second half of the run and over the seeds; this is said in the output.
The mean is of a skewed quantity, which short runs underestimate: the figure is then too good for the reference.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from fitted import (
    BATCH,
    FittedTask,
    ReferenceEstimator,
    crops_dataset,
    exact_fisher,
    fitted_task,
    relative_error,
)
from torch import Tensor

from t2v_lightning import FilterwiseFisher
from t2v_lightning.phases import HeadOptions, MonteCarloPhase, fisher_of_filters


class Point(NamedTuple):
    draws: int
    seconds: float
    error: float


def ours(fitted: FittedTask, seed: int) -> Iterator[Callable[[], Tensor]]:
    """Steps of one batch each; a step returns the estimate so far."""
    engine = fisher_of_filters(fitted.probe, 0, "weights")
    sums = FilterwiseFisher(engine.size)
    number = 0
    while True:
        phase = MonteCarloPhase(fitted.task, engine, sums, seed=seed + 1000 * number)
        for positions in phase.order(0).split(BATCH):

            def step(phase: MonteCarloPhase = phase, positions: Tensor = positions) -> Tensor:
                phase.step(fitted.images[positions], positions)
                return sums.estimate().fisher

            yield step
        number += 1


def reference(fitted: FittedTask, seed: int) -> Iterator[Callable[[], Tensor]]:
    estimator = ReferenceEstimator(fitted, seed)

    def step() -> Tensor:
        estimator()
        return estimator.fisher

    while True:
        yield step


def curve(steps: Iterator[Callable[[], Tensor]], truth: Tensor, budget: float, least: int = 0) -> list[Point]:
    """Error after each batch, for `budget` seconds of arithmetic and at least so many draws."""
    points: list[Point] = []
    seconds, draws = 0.0, 0
    for step in steps:
        start = time.process_time()
        estimate = step()
        seconds += time.process_time() - start
        draws += BATCH
        points.append(Point(draws, seconds, relative_error(estimate, truth)))
        if seconds > budget and draws >= least:
            return points
    raise AssertionError("the steps of an estimator never end")


def reached(points: list[Point], mark: float) -> Point | None:
    """The first point from which on the error stays below the mark."""
    above = [number for number, point in enumerate(points) if point.error > mark]
    first = above[-1] + 1 if above else 0
    return points[first] if first < len(points) else None


def report(name: str, curves: list[list[Point]], mark: float) -> float:
    """Prints seconds to the mark, the mean over seeds, and returns them."""
    there = [reached(points, mark) for points in curves]
    draw = sum(points[-1].seconds for points in curves) / sum(points[-1].draws for points in curves)
    if all(there):
        seconds = sum(point.seconds for point in there if point) / len(there)
        how = f"reached after {sum(p.draws for p in there if p) / len(there):,.0f} draws"
    else:
        tail = [p for points in curves for p in points[len(points) // 2 :]]
        constant = math.sqrt(sum(p.error**2 * p.draws for p in tail) / len(tail))
        draws = (constant / mark) ** 2
        seconds = draws * draw
        how = (
            f"EXTRAPOLATED by {constant:.1f} / sqrt(draws) to {draws:,.0f} draws; run: {curves[0][-1].draws:,} draws "
            f"a seed, errors {', '.join(f'{points[-1].error:.3f}' for points in curves)}"
        )
    print(f"{name:10s} {seconds:10.1f} s  ({1000 * draw:.2f} ms a draw; {how})", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds a seed")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fitted = fitted_task(crops_dataset(options.images), HeadOptions(), options.size)
    truth = exact_fisher(fitted)
    print(
        f"{len(fitted.task)} images, {fitted.task.num_classes} classes, {options.size} px, head's accuracy "
        f"{fitted.fit.accuracy:.3f}; to a relative error of {options.error}, {options.seeds} seeds"
    )
    seeds = range(options.seeds)
    mine = [curve(ours(fitted, seed), truth, options.budget, len(fitted.task)) for seed in seeds]
    theirs = [curve(reference(fitted, seed), truth, options.budget) for seed in seeds]
    fast = report("ours", mine, options.error)
    slow = report("reference", theirs, options.error)
    print(f"ours needs {slow / fast:,.0f} times less")


if __name__ == "__main__":
    main()
