"""How often a distance plus or minus two standard errors covers the distance on other images of the same tasks.

    python benchmarks/distance_errors.py [--subsets 128 192 256] [--distances cosine jsd] [--images 1536] [--size 64]

For each of six built-in tasks the head is fitted once, to all images, and every image's Fisher entries are taken
once (`sign`, one pass). Then the images of each task are dealt into disjoint subsets, class by class, many
times over; each subset becomes an embedding as `embed` would make it, with its sums over 16 groups, and each distance
between tasks, plus or minus two standard errors, is compared with the mean distance between the other subsets of
both tasks, of the same size and disjoint from this one. Coverage is that

- of all distances;
- of `clear` pairs of tasks: their distance is above three noise floors, both as means over the subsets;
- of `drawn` distances: above three noise floors of the same subsets. This selection is biased against the interval: a
  few images determine much of a small subset's floor and standard error, and where they are missing both are small.

`ratio` is the root mean square of the standard errors over that of the distances' differences from those of all
images. It includes what noise adds to a distance: the distance between two noisy vectors is on average larger than that
between their means. A cosine distance is never above one, so floors of 0.33 and more leave nothing to compare.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fitted import fitted_task
from numpy.typing import NDArray
from torch import Tensor

from t2v_lightning import Embedding, FilterwiseFisher
from t2v_lightning.data.builtin.arrays import digit_task
from t2v_lightning.data.builtin.crop_tasks import crop_task, open_crop
from t2v_lightning.data.dataset import TaskDataset
from t2v_lightning.data.images import open_array
from t2v_lightning.functional.distances import DISTANCES, noise_floor, pdist
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.phases import HeadOptions, fisher_of_filters

Indices = NDArray[np.int64]
TASKS: dict[str, Callable[[int], TaskDataset[Any]]] = {
    "digits, low": lambda n: TaskDataset(
        digit_task({str(k): [k] for k in range(5)}, "train", train=n), open_array
    ),
    "digits, high": lambda n: TaskDataset(
        digit_task({str(k): [k] for k in range(5, 10)}, "train", train=n), open_array
    ),
    "textures": lambda n: TaskDataset(crop_task(("brick", "grass", "gravel"), "train", train=n), open_crop),
    "ground": lambda n: TaskDataset(crop_task(("grass", "gravel"), "train", train=n), open_crop),
    "photos": lambda n: TaskDataset(
        crop_task(("cat", "coffee", "flower", "astronaut"), "train", train=n), open_crop
    ),
    "scenes": lambda n: TaskDataset(
        crop_task(("pagoda", "rocket", "motorcycle"), "train", train=n), open_crop
    ),
}


def values_of_images(dataset: TaskDataset[Any], size: int) -> tuple[Tensor, Tensor]:
    """Fisher entries [N, D] of every image of a task, and its labels [N]."""
    fitted = fitted_task(dataset, HeadOptions(), size)
    engine = fisher_of_filters(fitted.probe, 0, "weights")
    rows = []
    for where in fitted.batches():
        rows.append(
            engine(
                fitted.images[where],
                lambda outputs, where=where: cotangents(
                    outputs, get_likelihood("softmax"), "sign", index=where
                ),
            )
        )
    return torch.cat(rows), fitted.task.targets


def deal(targets: Tensor, subset: int, generator: np.random.Generator) -> list[Indices]:
    """Disjoint subsets of the images, each class dealt out in turn."""
    order = generator.permutation(len(targets))
    dealt = order[np.argsort(targets.numpy()[order], kind="stable")]
    count = len(targets) // subset
    return [dealt[k::count] for k in range(count)]


def embedding(values: Tensor, targets: Tensor, where: Indices) -> Embedding:
    """The embedding of some of the images, all classes weighing the same."""
    chosen = torch.as_tensor(where)
    weights = (1 / targets[chosen].bincount().double())[targets[chosen]]
    metric = FilterwiseFisher(values.shape[1])
    metric.update(values[chosen], weights / weights.sum(), chosen)
    found = metric.compute()
    arrays = {name: getattr(found, name).numpy() for name in ("stderr", "group_sums", "group_weights")}
    return Embedding(found.fisher.numpy(), np.ones(values.shape[1]), **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--subsets", type=int, nargs="+", default=[128, 192, 256], help="images of an embedding"
    )
    parser.add_argument("--distances", nargs="+", default=["cosine"], choices=list(DISTANCES))
    parser.add_argument("--images", type=int, default=1536, help="images of a task")
    parser.add_argument("--size", type=int, default=64, help="pixels of an image")
    parser.add_argument("--deals", type=int, default=8, help="times that the images are dealt out")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    tasks = [values_of_images(make(options.images), options.size) for make in TASKS.values()]
    print(f"{len(tasks)} tasks of {', '.join(str(len(targets)) for _, targets in tasks)} images")
    whole = [embedding(values, targets, np.arange(len(targets))) for values, targets in tasks]
    pairs = np.triu_indices(len(tasks), 1)
    print(
        f"{'distance':20}{'images':>7}{'number':>8}{'covered':>9}{'clear':>7}{'covered':>9}{'drawn':>7}{'covered':>9}"
        f"{'ratio':>7}{'floor':>9}"
    )
    for name in options.distances:
        exact = pdist(whole, name)[pairs]
        for subset in options.subsets:
            generator = np.random.default_rng(subset)
            found = []
            for _ in range(options.deals):
                dealt = [deal(targets, subset, generator) for _, targets in tasks]
                turn = []
                for k in range(min(map(len, dealt))):
                    embeddings = [embedding(*tasks[i], parts[k]) for i, parts in enumerate(dealt)]
                    matrix, stderr = pdist(embeddings, name, return_stderr=True)
                    floor = noise_floor(embeddings, name)
                    least = 3 * np.maximum.outer(floor, floor)
                    turn.append((matrix[pairs], stderr[pairs], least[pairs]))
                found.append(np.array(turn))
            report(name, subset, np.array(found), exact)


def report(name: str, subset: int, found: NDArray[np.float64], exact: NDArray[np.float64]) -> None:
    """One line of the table, from distances, errors and thresholds: [deals, subsets, 3, pairs]."""
    distance, stderr, least = np.moveaxis(found, 2, 0)
    count = distance.shape[1]
    others = (distance.sum(1, keepdims=True) - distance) / (count - 1)
    # The mean of the others has an error of its own, as large as that of `count - 1` subsets.
    covered = np.abs(distance - others) <= 2 * stderr * np.sqrt(1 + 1 / (count - 1))
    clear = np.broadcast_to(distance.mean((0, 1)) > least.mean((0, 1)), distance.shape)
    line = f"{name:20}{subset:7}{distance.size:8}{covered.mean():9.1%}"
    for chosen in (clear, distance > least):
        share = f"{covered[chosen].mean():.1%}" if chosen.any() else "none"
        line += f"{chosen.mean():7.0%}{share:>9}"
    ratio = np.sqrt((stderr**2).mean() / ((distance - exact) ** 2).mean())
    print(f"{line}{ratio:7.2f}{np.median(least) / 3:9.4f}", flush=True)


if __name__ == "__main__":
    main()
