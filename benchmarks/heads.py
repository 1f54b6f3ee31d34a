"""What the ways to fit a head make of an embedding: does its norm tell how hard a task is, do distances find families?

    python benchmarks/heads.py                       # the tasks that claims are made of: 40, three seeds
    python benchmarks/heads.py --seeds 2 --heads lbfgs calibrated
    python benchmarks/heads.py --tasks choosing      # those on which settings were chosen

Tasks are classes of digits, and classes of crops of photographs and textures, with noise or blur on the images or wrong
labels among the right ones, so that they differ in difficulty. The two sets share no class. A seed takes images of its
own, 96 for training, and the test error is that of its head on all images of the pool that it has not seen. The probe
is EfficientNet-Lite0, and the Fisher information is that of `sampling="sign"`.

Rows are `HeadOptions.method`, and for comparison its "doubt", the mean of 1 - sum p^2 over the images that it was
fitted to, where p are the probabilities that the Fisher information is taken with. Columns are

- rank correlations of the norm with the test error over all tasks, over those with right labels, and over those with
  some wrong ones, means over seeds, +- the standard error over tasks by the bootstrap;
- spread: the standard deviation of the log norm between seeds of one task, as a share of that between tasks;
- how far vectors of two seeds of one task are apart, as the standard error of one of them relative to its length
  (root mean square over tasks), what is reported for the head that was found, what `relative_stderr` is, which has the
  head fitted anew, and the ratio of this to what is measured;
- for each distance: how often a pair of tasks within a family (digits or crops) is nearer than one across; how often
  two seeds of one task are nearer than either is to another task; and the rank correlation of the distance with the
  difference of log norms.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor

from t2v_lightning import ProbeNetwork, get_probe
from t2v_lightning.data.builtin.bundled import bundled_digits
from t2v_lightning.data.builtin.crop_tasks import CROP_CLASSES, open_crop
from t2v_lightning.functional.distances import pdist
from t2v_lightning.functional.fisher_sums import add_samples, estimate, new_sums
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.loading.selection import select_images
from t2v_lightning.phases import HeadOptions, fisher_of_filters, no_log
from t2v_lightning.phases.head import HeadProblem

TRAIN = 96
METHODS = ("adam", "lbfgs", "calibrated")
DISTANCES = ("cosine", "cosine_unit")
SOFTMAX = get_likelihood("softmax")


class Spoiling(NamedTuple):
    """What is done to the images: noise of a standard deviation in grey levels, or blur of one in pixels."""

    noise: float = 0.0
    blur: float = 0.0

    def __call__(self, pixels: Any, generator: np.random.Generator) -> Any:
        spoilt = pixels + generator.normal(0, self.noise, pixels.shape)
        if self.blur:
            spoilt = gaussian_filter(spoilt, (self.blur, self.blur, 0)[: pixels.ndim])
        return spoilt.clip(0, 255).astype(np.uint8)


class Plan(NamedTuple):
    """Classes of the tasks of a family, what is done to their images, and shares of wrong labels."""

    classes: list[list[Any]]
    spoilings: list[Spoiling]
    wrong: list[float]


SETS = {
    "choosing": {
        "digits": Plan(
            [[0, 1], [1, 4], [2, 3], [2, 3, 4], [0, 1, 2, 3, 4]],
            [Spoiling(), Spoiling(noise=50), Spoiling(noise=110)],
            [0.1, 0.3],
        ),
        "crops": Plan(
            [
                ["brick", "cat"],
                ["astronaut", "rocket"],
                ["epithelium", "stroma"],
                ["stroma", "brick"],
                ["brick", "cat", "astronaut", "rocket"],
            ],
            [Spoiling(), Spoiling(noise=80), Spoiling(blur=5)],
            [0.1, 0.3],
        ),
    },
    "reporting": {
        "digits": Plan(
            [[5, 6], [7, 9], [8, 9], [5, 8, 9], [5, 6, 7, 8, 9]],
            [Spoiling(), Spoiling(noise=40), Spoiling(noise=90)],
            [0.2],
        ),
        "crops": Plan(
            [
                ["grass", "gravel"],
                ["coffee", "flower"],
                ["vessels", "background"],
                ["pagoda", "motorcycle"],
                ["coffee", "flower", "pagoda", "motorcycle"],
            ],
            [Spoiling(), Spoiling(noise=70), Spoiling(blur=4)],
            [0.2],
        ),
    },
}


@dataclass(frozen=True)
class Pool:
    """Images of a task as the probe takes them, their features and labels."""

    family: str
    images: Tensor
    features: Tensor
    labels: Tensor
    wrong: float


class Measured(NamedTuple):
    """One task, one seed, one head: its Fisher information and the squared length of its standard error for this head
    and for one that is fitted anew, the error on other images, and the mean of 1 - sum p^2."""

    fisher: Tensor
    fixed: float
    anew: float
    error: float
    doubt: float


def family_images(family: str, plan: Plan) -> tuple[list[Any], np.ndarray[Any, Any]]:
    wanted = sorted({name for classes in plan.classes for name in classes})
    if family == "digits":
        images, labels = bundled_digits()
        kept = np.isin(labels, wanted)
        return list(images[kept]), np.array(wanted).searchsorted(labels[kept])
    crops = [
        (np.asarray(open_crop(crop)), number)
        for number, name in enumerate(wanted)
        for split, count in (("train", 100), ("test", 50))
        for crop in CROP_CLASSES[name].crops(split, count)
    ]
    return [pixels for pixels, _ in crops], np.array([number for _, number in crops])


def pools(plans: dict[str, Plan], probe: ProbeNetwork) -> Iterator[Pool]:
    """One for each task; features are computed once for all tasks with the same images."""
    engine = fisher_of_filters(probe, 0, "weights")
    backbone = engine.features(probe.backbone)
    generator = np.random.default_rng(0)
    assert probe.transform is not None
    for family, plan in plans.items():
        pixels, numbers = family_images(family, plan)
        wanted = sorted({name for classes in plan.classes for name in classes})
        for spoiling in plan.spoilings:
            pictures = [Image.fromarray(spoiling(p, generator)).convert("RGB") for p in pixels]
            images = torch.stack([probe.transform(picture) for picture in pictures])
            features = torch.cat([backbone(part) for part in images.split(64)])
            for classes in plan.classes:
                inside = np.flatnonzero(np.isin(numbers, [wanted.index(name) for name in classes]))
                inside = generator.permutation(inside)
                labels = np.unique(numbers[inside], return_inverse=True)[1]
                for wrong in (0.0, *plan.wrong) if spoiling == plan.spoilings[0] else (0.0,):
                    other = (labels + generator.integers(1, len(classes), len(labels))) % len(classes)
                    given = torch.from_numpy(np.where(generator.random(len(labels)) < wrong, other, labels))
                    yield Pool(family, images[inside], features[inside], given, wrong)


def measure(pool: Pool, seed: int, heads: list[Any], probe: ProbeNetwork) -> dict[str, Measured]:
    """Every row of the table for one task and seed."""
    mine = torch.arange(TRAIN) + seed * TRAIN
    rest = torch.ones(len(pool.labels), dtype=torch.bool)
    rest[mine] = False
    task = select_images([(0, label) for label in pool.labels[mine].tolist()])
    probe.reset_head(task.num_classes)
    engine = fisher_of_filters(probe, 0, "weights", digest="of all tasks")
    rows: dict[str, Measured] = {}
    for method in heads:
        options = HeadOptions(method)
        probe.reset_head(task.num_classes, torch.Generator().manual_seed(seed))
        problem = HeadProblem(probe.head, pool.features[mine], task, options)
        problem.fit(seed, no_log)
        refits = problem.refit()
        with torch.no_grad():
            outputs = (
                probe.head(pool.features[mine])
                if refits is None or refits.outputs is None
                else refits.outputs
            )
            wrong = probe.head(pool.features[rest]).argmax(1) != pool.labels[rest]
        values = engine(pool.images[mine], lambda _, outputs=outputs: cotangents(outputs, SOFTMAX))
        found = []
        for anew in (False, True):
            sums = add_samples(
                new_sums(engine.size, anew),
                values,
                task.weights,
                task.chosen,
                refits.ratios if anew and refits else None,
            )
            found.append(estimate(sums))
        lengths = [float(one.stderr.square().sum()) for one in found]
        doubt = task.weights @ (1 - outputs.double().softmax(1).square().sum(1))
        rows[method] = Measured(found[0].fisher, *lengths, float(wrong.double().mean()), float(doubt))
    return rows


def rank_correlation(figures: Tensor, errors: Tensor, which: Tensor) -> str:
    """Mean over seeds and its error over tasks, of numbers [tasks, seeds]."""

    def mean(tasks: Tensor) -> float:
        pairs = zip(figures[tasks].T.tolist(), errors[tasks].T.tolist(), strict=True)
        return float(np.mean([spearmanr(a, b).statistic for a, b in pairs]))

    tasks = which.nonzero()[:, 0]
    generator = torch.Generator().manual_seed(0)
    draws = [tasks[torch.randint(len(tasks), (len(tasks),), generator=generator)] for _ in range(200)]
    return f"{mean(tasks):.2f} +- {np.nanstd([mean(draw) for draw in draws]):.2f}"


def of_stderr(row: str, fishers: Tensor, found: list[list[dict[str, Measured]]]) -> str:
    """The columns about the standard error, of vectors [tasks, seeds, D]."""
    length = fishers.mean(1).square().sum(1)
    squares = [fishers.var(1).sum(1)]
    for name in ("fixed", "anew"):
        squares.append(torch.tensor([np.mean([getattr(s[row], name) for s in task]) for task in found]))
    apart, fixed, anew = (square / length for square in squares)
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(len(length), (200, len(length)), generator=generator)
    ratios = (anew[draws].mean(1) / apart[draws].mean(1)).sqrt()
    cells = [float(relative.mean().sqrt()) for relative in (apart, fixed, anew)]
    ratio = f"{cells[2] / cells[0]:.2f} +- {ratios.std():.2f}"
    return f"{cells[0]:8.2f}{cells[1]:10.2f}{cells[2]:8.2f}{ratio:>16s}"


def of_distance(name: str, fishers: Tensor, families: list[str]) -> str:
    """The last columns, of vectors [tasks, seeds, D]."""
    tasks, seeds, size = fishers.shape
    d = pdist(fishers.reshape(-1, size).numpy(), distance=name).reshape(tasks, seeds, tasks, seeds)
    norms = fishers.norm(dim=2).log().numpy()
    upper = np.triu_indices(tasks, 1)
    same = np.array([families[i] == families[j] for i, j in zip(*upper, strict=True)])
    grouped, told, related = [], [], []
    for seed in range(seeds):
        pairs = d[:, seed, :, seed][upper]
        grouped.append((pairs[same][:, None] < pairs[~same]).mean())
        related.append(spearmanr(pairs, np.abs(norms[upper[0], seed] - norms[upper[1], seed])).statistic)
        for other in range(seeds):
            if other != seed:
                across = d[:, seed, :, other]
                own = across.diagonal()
                told.append((own[:, None] < across)[~np.eye(tasks, dtype=bool)].mean())
    return f"{np.mean(grouped):14.3f}{np.mean(told):8.3f}{np.mean(related):12.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", choices=SETS, default="reporting")
    parser.add_argument("--seeds", type=int, default=3, choices=(2, 3))
    parser.add_argument("--size", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--heads", nargs="+", choices=METHODS, default=METHODS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    probe = get_probe("efficientnet_lite0", input_size=options.size)
    tasks = list(pools(SETS[options.tasks], probe))
    found = [[measure(pool, seed, options.heads, probe) for seed in range(options.seeds)] for pool in tasks]
    spoilt = torch.tensor([pool.wrong > 0 for pool in tasks])
    families = [pool.family for pool in tasks]
    print(f"{len(tasks)} tasks, {options.seeds} seeds")
    print(
        f"{'head':18s}{'all':>14s}{'right labels':>16s}{'some wrong':>16s}{'error':>8s}{'spread':>8s}"
        f"{'apart':>8s}{'one head':>10s}{'anew':>8s}{'ratio':>16s}"
    )
    figures = {}
    for row in options.heads:
        figures[row] = torch.stack([torch.stack([s[row].fisher for s in task]) for task in found])
        error = torch.tensor([[s[row].error for s in task] for task in found])
        doubts = torch.tensor([[s[row].doubt for s in task] for task in found])
        for title, norms in ((row, figures[row].norm(dim=2)), (f"{row} doubt", doubts)):
            within, between = norms.log().var(1).mean().sqrt(), norms.log().mean(1).std()
            cells = [rank_correlation(norms, error, which) for which in (spoilt >= 0, ~spoilt, spoilt)]
            line = f"{title:18s}{cells[0]:>14s}{cells[1]:>16s}{cells[2]:>16s}{error.mean():8.3f}{within / between:8.2f}"
            print(line + (of_stderr(row, figures[row], found) if title == row else ""))
    print(f"\n{'head':14s}{'distance':14s}{'within family':>14s}{'seeds':>8s}{'difficulty':>12s}")
    for row, vectors in figures.items():
        for name in DISTANCES:
            print(f"{row:14s}{name:14s}{of_distance(name, vectors, families)}")


if __name__ == "__main__":
    main()
