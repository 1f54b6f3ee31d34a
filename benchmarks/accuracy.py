"""Relative L2 error of each sampling mode to `exact`, after 1, 2, 4 and 8 passes over a task of real images.

    python benchmarks/accuracy.py [--tasks digits,photos] [--images 256] [--size 64] [--seeds 32] [--reference 3]

Each task is measured once with a confident head (fitted as by default) and once with an unsure one (20 steps of Adam).
Rows:

- batch mean: the reference implementation's estimator (`fitted.ReferenceEstimator`), with as many draws per pass as
  there are images;
- categorical: labels drawn from the network's own distribution, gradients squared one by one;
- sign: in four ways, by the signs of an image's draws (independent, or orthogonal by a Hadamard matrix) and by the
  factor S S^T = diag(p) - p p^T (its C columns sqrt(p_k) (e_k - p), or the C - 1 of `functional.likelihood`). The last
  one, orthogonal signs and C - 1 columns together, is what `sampling="sign"` does.

A filter's value is a quadratic form of the vector that is backpropagated. So the form is computed once,
with one pass for each pair of outputs, and all modes and seeds are arithmetic on it. Figures are root mean squares over
many seeds. The estimators are otherwise unchanged.
"""

import argparse
from collections.abc import Callable

import torch
from fitted import BATCH, FittedTask, ReferenceEstimator, fitted_task, relative_error
from torch import Tensor

from t2v_lightning.data import get_datamodule
from t2v_lightning.functional.likelihood import cotangents, get_likelihood, rank_signs
from t2v_lightning.functional.random import random_signs
from t2v_lightning.phases import HeadOptions, fisher_of_filters

PASSES = (1, 2, 4, 8)
HEADS = {"confident": HeadOptions(), "unsure": HeadOptions(epochs=1, num_samples=20 * BATCH)}
SOFTMAX = get_likelihood("softmax")
Draws = Callable[[Tensor, int, int], list[Tensor]]
"""Outputs [N, C], passes, seed -> vectors [N, C], whose squares add up to the estimate."""


def categorical(outputs: Tensor, passes: int, seed: int) -> list[Tensor]:
    return list(cotangents(outputs, SOFTMAX, "categorical", passes=passes, seed=seed))


def plain_factor(outputs: Tensor, coefficients: Tensor) -> Tensor:
    """sum_k c_k sqrt(p_k) (e_k - p), the coefficients in the order of falling p."""
    p = outputs.softmax(1)
    scaled = (
        torch.zeros_like(p).scatter(1, p.argsort(dim=1, descending=True, stable=True), coefficients)
        * p.sqrt()
    )
    return scaled - p * scaled.sum(1, keepdim=True)


def signs(orthogonal: bool, fewer_columns: bool) -> Draws:
    def draws(outputs: Tensor, passes: int, seed: int) -> list[Tensor]:
        index = torch.arange(len(outputs))
        factor = SOFTMAX.factor_times if fewer_columns else plain_factor
        columns = outputs.shape[1] - fewer_columns
        return [
            factor(
                outputs,
                rank_signs(seed, draw, passes, index, columns)
                if orthogonal
                else random_signs(seed, draw, index, columns),
            )
            / passes**0.5
            for draw in range(passes)
        ]

    return draws


MODES: dict[str, Draws] = {
    "categorical": categorical,
    "sign: independent, C columns": signs(False, False),
    "sign: independent, C - 1 columns": signs(False, True),
    "sign: orthogonal, C columns": signs(True, False),
    "sign: orthogonal, C - 1 columns": signs(True, True),
}


def moments(vectors: list[Tensor]) -> Tensor:
    """sum over vectors of v v^T, [N, C, C]."""
    return torch.stack([torch.einsum("ni,nj->nij", v, v) for v in vectors]).sum(0)


def estimates(fitted: FittedTask, seconds: list[Tensor]) -> Tensor:
    """sum_n w_n <M_n, J_n^T J_n> filter by filter for second moments M [N, C, C]: [len(seconds), D]."""
    engine = fisher_of_filters(fitted.probe, 0, "weights")
    classes = fitted.task.num_classes
    total = torch.zeros(len(seconds), engine.size, dtype=torch.float64)
    for where in fitted.batches():
        images, weights = fitted.images[where], fitted.task.weights[where]
        for i in range(classes):
            for j in range(i + 1):
                # by polarisation 2 M_ij g_i g_j = M_ij ((g_i + g_j)^2 - g_i^2 - g_j^2), and M_ii g_i^2 beside it
                vector = torch.zeros(len(where), classes)
                vector[:, [i, j]] = 1.0
                squares = engine(images, lambda _, v=vector: [v]).double()
                parts = [
                    m[where, i, i] * 2 - m[where, i].sum(1) if i == j else m[where, i, j] for m in seconds
                ]
                total += torch.stack([weights * part for part in parts]) @ squares
    return total


def bench(name: str, head: str, options: argparse.Namespace) -> None:
    datamodule = get_datamodule(name)
    datamodule.setup()
    fitted = fitted_task(datamodule.train_dataset, HEADS[head], options.size, max_samples=options.images)
    with torch.no_grad():
        outputs = torch.cat([fitted.probe(fitted.images[where]) for where in fitted.batches()]).double()
    largest = float(outputs.softmax(1).amax(1).mean())
    print(
        f"\n{name}, {len(fitted.task)} images, {fitted.task.num_classes} classes, {head} head: mean largest "
        f"probability {largest:.3f}, accuracy {fitted.fit.accuracy:.3f}"
    )
    keys = [(mode, passes, seed) for mode in MODES for passes in PASSES for seed in range(options.seeds)]
    exact = moments(list(cotangents(outputs, SOFTMAX, "exact")))
    truth, *rest = estimates(fitted, [exact, *(moments(MODES[m](outputs, k, s)) for m, k, s in keys)])
    errors = {key: relative_error(estimate, truth) for key, estimate in zip(keys, rest, strict=True)}
    print(f"{'passes':34s}" + "".join(f"{passes:8d}" for passes in PASSES))
    batch_mean: dict[int, list[float]] = {passes: [] for passes in PASSES}
    for seed in range(options.reference):
        reference = ReferenceEstimator(fitted, seed)
        for passes in PASSES:
            while reference.batches * BATCH < passes * len(fitted.task):
                reference()
            batch_mean[passes].append(relative_error(reference.fisher, truth))
    if options.reference:
        print_row("batch mean", [batch_mean[passes] for passes in PASSES])
    for mode in MODES:
        print_row(mode, [[errors[mode, passes, seed] for seed in range(options.seeds)] for passes in PASSES])


def print_row(name: str, errors: list[list[float]]) -> None:
    figures = [torch.tensor(values).square().mean().sqrt() for values in errors]
    print(f"{name:34s}" + "".join(f"{figure:8.4f}" for figure in figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default="digits,photos,textures")
    parser.add_argument("--heads", default="confident,unsure")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--reference", type=int, default=3, help="seeds of the batch-mean estimator")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.tasks.split(","):
        for head in options.heads.split(","):
            bench(name, head, options)


if __name__ == "__main__":
    main()
