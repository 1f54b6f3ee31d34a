"""Seconds until the embedding of a 2,000-image task is within 5 % (relative L2) of `exact` over those images.

    python benchmarks/time_to_accuracy.py [--images 2000] [--size 64] [--error 0.05] [--budget 20] [--seeds 2]

Ours is `sampling="sign"` over all images, with the smallest of 1, 2, 4 and 8 passes whose error is below that mark; the
time of `exact` itself is shown beside it. The reference implementation's estimator (`fitted.ReferenceEstimator`) runs
batch after batch on the same probe with the same fitted head, and has arrived once its error stays below the mark.
Images are in memory, so only arithmetic is timed, in CPU time; comparing with `exact` is not counted. If the reference
has not arrived within the budget, its time is extrapolated by its own law, error = c / sqrt(draws), where c^2 is the
mean of error^2 * draws over the second half of the run and over the seeds; the output says so. That mean is rough,
because the quantity is skewed: with a confident head a rare label carries most of it.

The last table compares exact with sketched squares (`functional.layers.sketch`) for a task of which new images can
always be drawn: the error of the mean over n images is sqrt(V / n), with V the variance of one image's value, and n is
the time over that of one image, so sqrt(V t) compares errors at equal time. V is taken for the whole vector and for
each filter, of which the geometric mean is shown. Everything is relative to exact squares.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
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

from t2v_lightning.functional.fisher_sums import estimate
from t2v_lightning.functional.layers.sketch import Sketch, Squares
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.phases import HeadOptions, MonteCarloOptions, MonteCarloPhase, fisher_of_filters


class Point(NamedTuple):
    draws: int
    seconds: float
    error: float


def ours(fitted: FittedTask, passes: int, seed: int) -> Tensor:
    engine = fisher_of_filters(fitted.probe, 0, "weights")
    options = MonteCarloOptions(passes=passes)
    phase = MonteCarloPhase(fitted.probe, fitted.task, engine, options, seed)
    for positions in phase.order(0).split(BATCH):
        phase.step(fitted.images[positions], positions)
    return estimate(phase.sums).fisher


def reference(fitted: FittedTask, seed: int) -> Iterator[Callable[[], Tensor]]:
    estimator = ReferenceEstimator(fitted, seed)

    def step() -> Tensor:
        estimator()
        return estimator.fisher

    while True:
        yield step


def curve(steps: Iterator[Callable[[], Tensor]], truth: Tensor, budget: float) -> list[Point]:
    """Error after each batch, for `budget` seconds of arithmetic."""
    points: list[Point] = []
    seconds, draws = 0.0, 0
    for step in steps:
        start = time.process_time()
        estimate = step()
        seconds += time.process_time() - start
        draws += BATCH
        points.append(Point(draws, seconds, relative_error(estimate, truth)))
        if seconds > budget:
            return points
    raise AssertionError("the steps of an estimator never end")


def reached(points: list[Point], mark: float) -> Point | None:
    """The first point from which on the error stays below the mark."""
    above = [number for number, point in enumerate(points) if point.error > mark]
    first = above[-1] + 1 if above else 0
    return points[first] if first < len(points) else None


def time_of_ours(fitted: FittedTask, truth: Tensor, mark: float, seeds: int) -> float:
    """Seconds of the smallest number of passes that gets below the mark for all seeds; prints each."""
    for passes in (1, 2, 4, 8):
        start = time.process_time()
        errors = [relative_error(ours(fitted, passes, seed), truth) for seed in range(seeds)]
        seconds = (time.process_time() - start) / seeds
        print(
            f"sign, passes={passes} {seconds:9.1f} s  (error {', '.join(f'{e:.3f}' for e in errors)})",
            flush=True,
        )
        if max(errors) < mark:
            return seconds
    return math.inf


def time_of_reference(curves: list[list[Point]], mark: float) -> float:
    """Seconds to the mark, as a mean over seeds; prints it."""
    there = [reached(points, mark) for points in curves]
    per_draw = sum(points[-1].seconds for points in curves) / sum(points[-1].draws for points in curves)
    if all(there):
        seconds = sum(point.seconds for point in there if point) / len(there)
        how = f"reached after {sum(p.draws for p in there if p) / len(there):,.0f} draws"
    else:
        tail = [p for points in curves for p in points[len(points) // 2 :]]
        constant = math.sqrt(sum(p.error**2 * p.draws for p in tail) / len(tail))
        draws = (constant / mark) ** 2
        seconds = draws * per_draw
        errors = ", ".join(f"{points[-1].error:.3f}" for points in curves)
        how = (
            f"EXTRAPOLATED by {constant:.1f} / sqrt(draws) to {draws:,.0f} draws; run: {curves[0][-1].draws:,} draws "
            f"a seed, errors {errors}"
        )
    print(f"reference      {seconds:9.1f} s  ({1000 * per_draw:.2f} ms a draw; {how})", flush=True)
    return seconds


def table_of_sketches(fitted: FittedTask, rounds: int) -> None:
    """Prints time, variance and error at equal time of each kind of squares, relative to exact ones."""
    engine, softmax = fisher_of_filters(fitted.probe, 0, "weights"), get_likelihood("softmax")
    kinds: list[Squares] = ["exact", "auto", 4, 8, 16, 32]
    times: dict[Squares, list[float]] = {kind: [] for kind in kinds}
    values: dict[Squares, list[Tensor]] = {kind: [] for kind in kinds}
    for seed in range(rounds):
        for kind in kinds:
            start = time.process_time()
            for where in fitted.batches():
                vectors = partial(cotangents, likelihood=softmax, seed=seed, index=where)
                squares = engine(fitted.images[where], vectors, Sketch.of(kind, "sign", seed, where))
                values[kind].append(squares.double())
            times[kind].append(time.process_time() - start)
    print(
        f"{'squares':8s} {'time':>6s}  {'variance':>8s}  {'error':>6s}   {'of a filter':>11s}  {'error':>6s}"
    )
    exact = torch.cat(values["exact"])
    mean = exact.mean(0)
    used = mean > 0
    base = (exact[:, used] - mean[used]).square().mean(0)
    for kind in kinds:
        spread = (torch.cat(values[kind])[:, used] - mean[used]).square().mean(0)
        whole, single = float(spread.sum() / base.sum()), float((spread / base).log().mean().exp())
        seconds = statistics.median(times[kind]) / statistics.median(times["exact"])
        print(
            f"{kind!s:8s} {seconds:6.2f}  {whole:8.3f}  {math.sqrt(whole * seconds):6.3f}   {single:11.3f}  "
            f"{math.sqrt(single * seconds):6.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds a seed")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--head-epochs", type=int, default=HeadOptions().epochs)
    parser.add_argument("--network", default="efficientnet_lite0", help="others have random weights")
    parser.add_argument("--sketches", action="store_true", help="only the last table")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = HeadOptions(epochs=options.head_epochs)
    fitted = fitted_task(crops_dataset(options.images), head, options.size, options.network)
    if options.sketches:
        table_of_sketches(fitted, options.seeds)
        return
    start = time.process_time()
    truth = exact_fisher(fitted)
    of_exact = time.process_time() - start
    print(
        f"{len(fitted.task)} images, {fitted.task.num_classes} classes, {options.size} px, head's accuracy "
        f"{fitted.fit.accuracy:.3f}; to a relative error of {options.error}, {options.seeds} seeds"
    )
    print(f"exact          {of_exact:9.1f} s")
    fast = min(of_exact, time_of_ours(fitted, truth, options.error, options.seeds))
    curves = [curve(reference(fitted, seed), truth, options.budget) for seed in range(options.seeds)]
    slow = time_of_reference(curves, options.error)
    print(f"ours needs {slow / fast:,.0f} times less")
    table_of_sketches(fitted, options.seeds)


if __name__ == "__main__":
    main()
