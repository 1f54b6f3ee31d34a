"""Storing features by position, and fitting the head on all of them."""

from typing import Any

import pytest
import torch
from small_probe import small_probe, striped
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork
from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.loading.selection import Selection, select_images
from t2v_lightning.phases import FeaturesPhase, HeadOptions, no_log
from t2v_lightning.phases.head import evaluate_head

LBFGS = HeadOptions("lbfgs")


def prepared(n: int = 12) -> tuple[ProbeNetwork, Selection, Tensor]:
    items = striped(n)
    probe, task = small_probe(), select_images(items)
    probe.reset_head(task.num_classes, torch.Generator().manual_seed(0))
    return probe, task, torch.stack([image for image, _ in items])


def fitted(batches: list[list[int]], n: int = 12) -> tuple[Tensor, FeaturesPhase]:
    probe, task, images = prepared(n)
    phase = FeaturesPhase(probe, probe.features, task, LBFGS, seed=0)
    for batch in batches:
        phase.step(images[torch.tensor(batch) % n], torch.tensor(batch))
    phase.finish(no_log)
    return probe.head.weight.detach(), phase


def test_it_visits_every_image_once() -> None:
    probe, task, _ = prepared()
    phase = FeaturesPhase(probe, probe.features, task, LBFGS, seed=0)
    assert phase.epochs == 1
    assert phase.order(0).tolist() == list(range(12))


def test_batches_order_and_padding_do_not_matter() -> None:
    whole, phase = fitted([list(range(12))])
    assert phase.fit is not None
    parts, _ = fitted([[3, 1], [11, 0, 2], [10, 9, 8, 7], [4, 5, 6, 12, 13]])
    torch.testing.assert_close(parts, whole, rtol=1e-8, atol=1e-10)


def test_the_fit_is_that_of_the_head_in_the_probe() -> None:
    probe, task, images = prepared()
    phase = FeaturesPhase(probe, probe.features, task, LBFGS, seed=0)
    phase.step(images, torch.arange(12))
    phase.finish(no_log)
    with torch.no_grad():
        expected = evaluate_head(
            probe.head, probe.features(images), task.targets, task.weights, get_likelihood("softmax")
        )
    assert phase.fit is not None
    assert phase.fit.loss == pytest.approx(expected.loss, rel=1e-12)
    assert phase.fit.loss < phase.fit.constant_loss


def test_the_backbone_is_untouched() -> None:
    probe, task, images = prepared()
    before = probe.digest
    phase = FeaturesPhase(probe, probe.features, task, LBFGS, seed=0)
    phase.step(images, torch.arange(12))
    phase.finish(no_log)
    assert probe.digest == before
    assert all(p.grad is None for p in probe.parameters())


def test_missing_images_are_counted() -> None:
    probe, task, images = prepared()
    phase = FeaturesPhase(probe, probe.features, task, LBFGS, seed=0)
    with pytest.raises(RuntimeError, match="12 of 12 images were not seen"):
        phase.finish(no_log)
    phase.step(images[:5], torch.arange(5))
    with pytest.raises(RuntimeError, match="7 of 12 images were not seen"):
        phase.finish(no_log)


def test_features_that_are_not_finite_say_what_to_check() -> None:
    module: Any = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 2))
    nn.init.constant_(module[1].weight, 1.0)
    probe = ProbeNetwork.from_module(module, input_size=(1, 8, 8))
    task = select_images([(torch.zeros(1, 8, 8), i % 2) for i in range(4)])
    phase = FeaturesPhase(probe, probe.features, task, LBFGS, seed=0)
    with pytest.raises(ValueError, match="features are not finite; check its weights"):
        phase.step(torch.full((4, 1, 8, 8), 1e38), torch.arange(4))


def test_a_batch_of_padding_alone_is_nothing() -> None:
    probe, task, images = prepared()
    phase = FeaturesPhase(probe, probe.features, task, LBFGS, seed=0)
    phase.step(images[:2], torch.tensor([12, 13]))
    with pytest.raises(RuntimeError, match="12 of 12"):
        phase.finish(no_log)
