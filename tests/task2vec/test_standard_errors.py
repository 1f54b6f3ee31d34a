"""The standard error that an embedding states, and the pass that ends when it is small enough."""

from typing import Any

import numpy as np
import torch
from small_fits import EXACT, QUICK, fit, relative, task
from small_probe import small_probe
from torch.utils.data import DataLoader

from t2v_lightning import Task2Vec, embed
from t2v_lightning.functional.distances.jackknife import jackknife_variance, leave_one_out


def test_the_stated_error_covers_the_error_made() -> None:
    """Half of a task against all of it: within a few of the errors that are stated."""
    items = task(120)
    whole = embed(items, small_probe(), head="keep", progress=False, sampling="exact", num_classes=None)
    part = embed(items, small_probe(), head="keep", progress=False, sampling="exact", max_samples=40)
    assert part.stderr is not None
    z = (part.fisher - whole.fisher) / part.stderr
    assert 0.05 < float(np.sqrt((z**2).mean())) < 3
    assert part.relative_stderr > (whole.relative_stderr or 1)  # type: ignore[operator]


def test_enough_images_are_enough() -> None:
    """With a target for its standard error the pass ends early, the same way with and without a Trainer."""
    items = task(200)
    options: dict[str, Any] = {"sampling": "exact", "head": "lbfgs", "target_stderr": 0.4}
    whole = embed(items, small_probe(), progress=False, **EXACT)
    part = embed(items, small_probe(), batch_size=8, progress=False, **options)
    assert 64 <= part.meta["samples"] < 200
    assert part.meta["samples"] % 8 == 0
    assert part.relative_stderr <= 0.4  # type: ignore[operator]
    assert relative(part, whole) < 3 * part.relative_stderr  # type: ignore[operator]
    module = Task2Vec(small_probe(), **options)
    assert relative(fit(module, DataLoader(items, batch_size=8), precision="64-true"), part) < 1e-9
    assert module.embedding is not None
    assert module.embedding.meta["samples"] == part.meta["samples"]
    assert module.embed(items, batch_size=8, progress=False).meta["samples"] == part.meta["samples"]
    never = embed(items, small_probe(), progress=False, **{**options, "target_stderr": 1e-9})
    assert relative(never, whole) < 1e-9


def test_group_sums_add_up_to_the_vector() -> None:
    embedding = embed(task(), small_probe(), head=QUICK, progress=False)
    assert embedding.group_sums is not None
    assert embedding.group_weights is not None
    assert embedding.group_sums.shape == (16, 10)
    np.testing.assert_allclose(
        embedding.group_sums.sum(0) / embedding.group_weights.sum(), embedding.fisher, rtol=1e-5
    )


def noisy(n: int, seed: int) -> Any:
    """Images of three classes that overlap, other ones for every seed."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (image + 2.5 * torch.randn(image.shape, dtype=image.dtype, generator=generator), y)
        for image, y in task(n)
    ]


def test_the_stated_error_is_that_of_other_images_with_a_head_of_their_own() -> None:
    """Among many samples of a task; for the one head that was found it is much smaller."""
    found = [embed(noisy(45, seed), small_probe(), progress=False, **EXACT) for seed in range(30)]
    vectors = np.stack([one.fisher for one in found])
    apart = np.sqrt(vectors.var(0, ddof=1).sum())
    stated = np.sqrt(np.mean([(one.stderr**2).sum() for one in found]))  # type: ignore[operator]
    sums = np.stack([one.group_sums for one in found]).astype(float)  # type: ignore[arg-type]
    weights = np.stack([one.group_weights for one in found])  # type: ignore[arg-type]
    fixed = []
    for one, group, weight in zip(found, sums, weights, strict=True):
        means, ratios = leave_one_out(group, weight)
        fixed.append(jackknife_variance(one.fisher, means, ratios).sum())
    assert np.sqrt(np.mean(fixed)) < 0.8 * apart
    assert 0.75 < stated / apart < 1.33
