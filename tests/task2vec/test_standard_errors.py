"""The standard error that an embedding states, and the pass that ends when it is small enough."""

from typing import Any

import numpy as np
from small_fits import EXACT, QUICK, fit, relative, task
from small_probe import small_probe
from torch.utils.data import DataLoader

from t2v_lightning import Task2Vec, embed


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
