"""How fast distances are, against a plain NumPy loop over pairs with the same formula.

    python benchmarks/distances.py                      # 1,000 embeddings of 8,512 entries
    python benchmarks/distances.py --count 232 --distances cosine kl --threads 1 2 4 --busy 0 2
    python benchmarks/distances.py --count 60 --errors  # with their standard errors
    python benchmarks/distances.py --count 10000 --distances cosine --numba with --repeats 1

Every row is for a number of threads, alone and beside busy processes, which this starts and ends. Prints microseconds
per pair and the ratio to the loop, both measured in this run, in turns; the largest difference from the loop; and the
peak memory of the process. Rows beside 0 busy processes are meaningful only on an idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy.special import xlogy

from t2v_lightning.functional.distances import DISTANCES, compiled, pdist, tiles

Pair = Callable[[np.ndarray, np.ndarray], float]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    total = a + b + 1e-8
    p, q = a / total, b / total
    return float(1 - p @ q / np.sqrt((p @ p) * (q @ q)))


def directions(v: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (v / w - 1 + np.log(w) - np.log(v)))


def kl(a: np.ndarray, b: np.ndarray) -> float:
    v, w = 1 / a, 1 / b
    return float(np.maximum(directions(v, w), directions(w, v)).sum())


def asymmetric_kl(a: np.ndarray, b: np.ndarray) -> float:
    return float(directions(1 / a, 1 / b).sum())


def jsd(a: np.ndarray, b: np.ndarray) -> float:
    v, w = 1 / a, 1 / b
    mean = (v + w) / 2
    return float((directions(v, mean) + directions(w, mean)).mean() / 2)


def normalized_cosine(a: np.ndarray, b: np.ndarray) -> float:
    v, w = 1 / a, 1 / b
    return float(1 - v @ w / np.sqrt((v @ v) * (w @ w)))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    v, w = 1 / a, 1 / b
    v, w = v - v.mean(), w - w.mean()
    return float(1 - v @ w / np.sqrt((v @ v) * (w @ w)))


def entropy(a: np.ndarray, b: np.ndarray) -> float:
    p = a / (a + b + 1e-8)
    return float(np.log(2) + (xlogy(p, p) + xlogy(1 - p, 1 - p)).mean())


LOOPS: dict[str, Pair] = {
    f.__name__: f for f in (cosine, kl, asymmetric_kl, jsd, normalized_cosine, correlation, entropy)
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, help="number of embeddings")
    parser.add_argument("--size", type=int, default=8512, help="entries of an embedding")
    parser.add_argument("--distances", nargs="+", default=list(LOOPS), choices=list(LOOPS))
    parser.add_argument(
        "--repeats", type=int, default=3, help="turns of loop and package; the best of each counts"
    )
    parser.add_argument("--loop-pairs", type=int, default=20_000, help="pairs of the loop in a turn")
    parser.add_argument("--numba", default="both", choices=["both", "with", "without"])
    parser.add_argument("--skip-loop", action="store_true", help="only time the package")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2, 4], help="of the package")
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 2], help="processes that do nothing else")
    parser.add_argument(
        "--errors", action="store_true", help="with standard errors, 32 more distances a pair"
    )
    options = parser.parse_args()

    generator = np.random.default_rng(0)
    fishers = generator.normal(-9, 2, (options.count, options.size))
    np.exp(fishers, out=fishers)
    embeddings = with_groups(fishers, generator) if options.errors else fishers
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.count} embeddings of {options.size} entries")
    print(f"{'':26}{'busy':>5}{'threads':>8}{'seconds':>9}{'us/pair':>9}", end="")
    print(f"{'loop us/pair':>14}{'ratio':>7}{'difference':>12}")
    for busy, name in itertools.product(options.busy, options.distances):
        both = DISTANCES[name].fused is not None and compiled.is_available()
        variants = {"with": True, "without": False} if both else {"without": False}
        for suffix, use_compiled in variants.items():
            if both and options.numba not in ("both", suffix):
                continue
            label = f"{name} {suffix} numba" if both else name
            with (
                busy_processes(busy),
                mock.patch.object(tiles, "is_available", lambda use_compiled=use_compiled: use_compiled),
            ):
                report(name, f"{label:26}{busy:5}", fishers, embeddings, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB, of which {before:.2f} GiB are imports and the embeddings")


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def with_groups(fishers: np.ndarray, generator: np.random.Generator) -> list[Any]:
    weights = np.full(16, 1 / 16)
    sums = [fisher * weights[:, None] * generator.uniform(0.5, 1.5, (16, 1)) for fisher in fishers]
    return [SimpleNamespace(fisher=s.sum(0), group_sums=s, group_weights=weights) for s in sums]


def report(name: str, label: str, fishers: np.ndarray, embeddings: Any, options: argparse.Namespace) -> None:
    """Prints a row for each number of threads."""
    count = len(fishers)
    pairs = count * (count - 1) // 2 * (1 if DISTANCES[name].symmetric else 2) * (33 if options.errors else 1)
    chosen = list(itertools.islice(itertools.combinations(range(count), 2), options.loop_pairs))
    loop, expected = [], np.empty(0)
    ours: dict[int, list[float]] = {threads: [] for threads in options.threads}
    if options.errors:
        fishers = np.array([embedding.fisher for embedding in embeddings])
    for _ in range(options.repeats):
        if not options.skip_loop:
            start = time.perf_counter()
            expected = np.array([LOOPS[name](fishers[i], fishers[j]) for i, j in chosen])
            loop.append((time.perf_counter() - start) / len(chosen))
        for threads, seconds in ours.items():
            torch.set_num_threads(threads)
            start = time.perf_counter()
            found = pdist(embeddings, name, return_stderr=options.errors)
            seconds.append(time.perf_counter() - start)
            matrix = found[0] if options.errors else found
    for threads, seconds in ours.items():
        line = f"{label}{threads:8}{min(seconds):9.2f}{min(seconds) / pairs * 1e6:9.3f}"
        if loop:
            apart = np.abs(np.array([matrix[i, j] for i, j in chosen]) - expected).max()
            line += f"{min(loop) * 1e6:14.2f}{min(loop) * pairs / min(seconds):7.1f}"
            line += f"{apart / max(1.0, np.abs(expected).max()):12.1e}"
        print(f"{line}   (first call {seconds[0]:.2f} s)", flush=True)


if __name__ == "__main__":
    main()
