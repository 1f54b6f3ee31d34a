"""The truth: the error of a linear head on an expert's features, from few images."""

from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from selection.experts import FIXED, Setting, load_expert, make_expert, task_labels
from selection.image_set import Labels
from selection.tasks import DRAWS, Pixels, draw, save, tested
from t2v_lightning.functional.head import fit_newton, with_ones
from t2v_lightning.functional.likelihood import get_likelihood

PENALTY = 1e-3
"""Of the head, on features whose mean square length is 1."""


def probe_error(
    features: NDArray[np.floating], labels: Labels, tests: NDArray[np.floating], answers: Labels
) -> float:
    """Error in percent, on tests [M, P], of the convex head fitted to features [N, P], all classes weighted alike."""
    z = torch.from_numpy(features).double()
    mean = z.mean(0)
    scale = (z - mean).square().sum(1).mean().sqrt().clamp_min(1e-12)
    y = torch.from_numpy(labels)
    weights = 1 / y.bincount()[y].double()
    batch = (with_ones((z - mean) / scale), y, weights / weights.sum())
    head = fit_newton([batch], int(y.max()) + 1, get_likelihood("softmax"), PENALTY, near=1e-3)
    outputs = with_ones((torch.from_numpy(tests).double() - mean) / scale) @ head.T
    return 100 * float(np.mean(outputs.argmax(1).numpy() != answers))


def positions_in_used(images: Pixels) -> NDArray[np.int64]:
    """Where each image of a set stands among the used ones; -1 for the others."""
    where = np.full(len(images.side), -1)
    where[images.used] = np.arange(len(images.used))
    return where


def measure_truth(setting: Setting, name: str, seed: int) -> None:
    """Stores the errors of an expert on every task, float64 [DRAWS]; makes the expert first if need be."""
    seed = 0 if name in FIXED else seed
    path = setting.path(f"truth_{name}_{seed}.npz")
    if path.exists():
        return
    make_expert(setting, name, seed)
    outputs = load_expert(setting, name, seed)
    errors = {}
    for task, (source, _, labels) in task_labels(setting).items():
        images = setting.pixels(source)
        where, tests = positions_in_used(images), tested(labels, images.side)
        features = outputs[source].features.astype(np.float64)
        row = []
        for number in range(DRAWS):
            chosen = draw(task, labels, images.side, number)
            row.append(
                probe_error(features[where[chosen]], labels[chosen], features[where[tests]], labels[tests])
            )
        errors[task] = np.array(row)
    save(path, **errors)


def load_truth(setting: Setting, names: list[str], seed: int) -> NDArray[np.float64]:
    """Errors in percent [tasks, experts, DRAWS]."""
    tasks = list(task_labels(setting))
    columns = []
    for name in names:
        with np.load(setting.path(f"truth_{name}_{0 if name in FIXED else seed}.npz")) as file:
            columns.append(np.stack([file[task] for task in tasks]))
    return np.stack(columns, axis=1)


def half_of(family: str, families: list[str]) -> int:
    """0 for families that settings are chosen on, 1 for those that are reported; by a hash of the name."""
    order = sorted(set(families), key=lambda name: crc32(f"half {name}".encode()))
    return order.index(family) % 2
