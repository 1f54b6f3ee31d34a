"""The mean of the probe's features over a task, which an embedding carries beside its Fisher information."""

from typing import Any

import numpy as np
import pytest
import torch
from small_fits import run_module, task
from small_probe import small_probe

from t2v_lightning import Task2Vec

SHORT: dict[str, Any] = {"method": "variational", "num_samples": 60, "epochs": 1}


@pytest.mark.parametrize("options", [{"sampling": "sign"}, SHORT], ids=["montecarlo", "variational"])
@pytest.mark.parametrize("run", ["embed", "trainer"])
def test_every_class_counts_alike_in_the_mean(options: dict[str, Any], run: str) -> None:
    items, probe = task()[:17], small_probe()
    embedding = run_module(Task2Vec(probe, head="lbfgs", **options), items, run)
    with torch.no_grad():
        features = probe.features(torch.stack([image for image, _ in items])).numpy()
    labels = np.array([label for _, label in items])
    expected = np.mean([features[labels == c].mean(0) for c in np.unique(labels)], axis=0)
    assert not np.allclose(expected, features.mean(0), rtol=1e-3)
    assert embedding.mean_features is not None
    assert embedding.mean_features.dtype == np.float32
    np.testing.assert_allclose(embedding.mean_features, expected, rtol=1e-6, atol=1e-7)


def test_without_balance_every_image_counts_alike() -> None:
    items, probe = task()[:17], small_probe()
    embedding = Task2Vec(probe, head="lbfgs", balanced=False).embed(items, progress=False)
    with torch.no_grad():
        features = probe.features(torch.stack([image for image, _ in items])).numpy()
    assert embedding.mean_features is not None
    np.testing.assert_allclose(embedding.mean_features, features.mean(0), rtol=1e-6, atol=1e-7)
