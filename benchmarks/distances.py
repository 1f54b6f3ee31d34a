"""How fast distances are, against a plain NumPy loop over pairs with the same formula.

    python benchmarks/distances.py                      # 1,000 embeddings of 8,512 entries
    python benchmarks/distances.py --count 10000 --distances cosine --numba with --repeats 1

Prints microseconds per pair and the ratio to the loop, both measured in this run, in turns; the largest
difference from the loop; and the peak memory of the process. Ratios are meaningful only on an idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from collections.abc import Callable
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
    options = parser.parse_args()

    generator = np.random.default_rng(0)
    fishers = generator.normal(-9, 2, (options.count, options.size))
    np.exp(fishers, out=fishers)
    pairs = options.count * (options.count - 1) // 2
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    threads = torch.get_num_threads()
    print(f"{options.count} embeddings of {options.size} entries, {pairs} pairs, {threads} threads")
    print(f"{'':26}{'seconds':>9}{'us/pair':>9}{'loop us/pair':>14}{'ratio':>7}{'difference':>12}")
    for name in options.distances:
        both = DISTANCES[name].fused is not None and compiled.is_available()
        variants = {"with": True, "without": False} if both else {"without": False}
        for suffix, use_compiled in variants.items():
            if both and options.numba not in ("both", suffix):
                continue
            with mock.patch.object(tiles, "is_available", lambda use_compiled=use_compiled: use_compiled):
                report(name, f"{name} {suffix} numba" if both else name, fishers, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB, of which {before:.2f} GiB are imports and the embeddings")


def report(name: str, label: str, fishers: np.ndarray, options: argparse.Namespace) -> None:
    count = len(fishers)
    pairs = count * (count - 1) // 2 * (1 if DISTANCES[name].symmetric else 2)
    chosen = list(itertools.islice(itertools.combinations(range(count), 2), options.loop_pairs))
    ours, loop, expected = [], [], np.empty(0)
    for turn in range(options.repeats):
        start = time.perf_counter()
        matrix = pdist(fishers, name)
        ours.append(time.perf_counter() - start)
        if turn == 0:
            first = ours[0]
        if not options.skip_loop:
            start = time.perf_counter()
            expected = np.array([LOOPS[name](fishers[i], fishers[j]) for i, j in chosen])
            loop.append((time.perf_counter() - start) / len(chosen))
    line = f"{label:26}{min(ours):9.2f}{min(ours) / pairs * 1e6:9.3f}"
    if loop:
        found = np.array([matrix[i, j] for i, j in chosen])
        apart = np.abs(found - expected).max() / max(1.0, np.abs(expected).max())
        line += f"{min(loop) * 1e6:14.2f}{min(loop) * pairs / min(ours):7.1f}{apart:12.1e}"
    print(f"{line}   (first call {first:.2f} s)", flush=True)


if __name__ == "__main__":
    main()
