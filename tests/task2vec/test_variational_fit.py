"""The variational method from a task to its embedding."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from small_probe import small_probe, striped
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from t2v_lightning import ProbeNetwork, Task2Vec, embed
from t2v_lightning.functional.distances import pdist
from t2v_lightning.phases import HeadOptions

HEAD = HeadOptions(lr=1e-2, epochs=1, num_samples=1000)
SHORT: dict[str, Any] = {"method": "variational", "num_samples": 90, "epochs": 2, "head": HEAD}


def module(**options: Any) -> Task2Vec:
    return Task2Vec(small_probe(), **SHORT | options)


def test_the_embedding_holds_precisions_of_noise_and_priors() -> None:
    task = striped(30)
    t2v = module()
    embedding = t2v.embed(task, batch_size=16, progress=False)
    noise: Any = t2v.plan.learned
    assert torch.equal(torch.as_tensor(embedding.fisher), (-noise.log_variance.detach()).exp())
    for number, entries in enumerate(embedding.layers.values()):
        expected = (-noise.log_lambda2[number]).exp().item()
        assert embedding.scale[entries] == pytest.approx(expected, rel=1e-12)
    assert embedding.stderr is None
    assert list(embedding.layers) == ["0", "3"]
    assert embedding.meta["method"] == "variational"
    assert embedding.meta["variational"]["num_samples"] == 90
    assert embedding.meta["variational"]["accuracy"] > 0.5


def test_a_second_embedding_starts_afresh_and_the_callers_probe_is_untouched() -> None:
    task, probe = striped(30), small_probe()
    before = {name: value.clone() for name, value in probe.state_dict().items()}
    t2v = Task2Vec(probe, **SHORT, update_norm=True)
    first, other, second = (
        t2v.embed(data, batch_size=16, progress=False) for data in (task, striped(24, classes=2), task)
    )
    assert first == second
    assert first != other
    assert all(torch.equal(value, before[name]) for name, value in probe.state_dict().items())
    assert all(p.requires_grad for p in probe.parameters())
    assert embed(task, probe, **SHORT, update_norm=True, batch_size=16, progress=False) == first


def test_the_trainer_gives_what_the_plain_loop_gives(tmp_path: Path) -> None:
    task = striped(30)
    expected = module().embed(task, batch_size=16, progress=False)
    t2v = module()
    trainer = pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        accelerator="cpu",
        max_epochs=-1,
        precision="64-true",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(t2v, DataLoader(task, batch_size=16))  # type: ignore[arg-type]
    assert t2v.embedding == expected


def test_batch_size_changes_steps_but_not_the_noise_of_a_draw() -> None:
    """With learning rates next to nothing, the mean loss over an epoch cannot depend on the batches."""
    still = {"init": "reference", "noise_lr": 1e-12, "head_lr": 1e-12}
    figures = [
        module(**still).embed(striped(30), batch_size=size, progress=False).meta["variational"]["loss"]
        for size in (7, 90)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-8)


def test_skipped_stages_leave_the_vector() -> None:
    embedding = module(skip_layers=3).embed(striped(30), progress=False)
    assert dict(embedding.layers) == {"3": slice(0, 6)}


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_other_likelihoods(likelihood: Any) -> None:
    task = [(image, torch.eye(3, dtype=torch.float64)[label]) for image, label in striped(30)]
    embedding = module(likelihood=likelihood).embed(task, progress=False)
    assert embedding.meta["likelihood"] == likelihood


def test_a_kept_head_is_not_learned() -> None:
    probe = small_probe(classes=3)
    t2v = Task2Vec(probe, **SHORT | {"head": "keep"})
    t2v.embed(striped(30), progress=False)
    assert torch.equal(t2v.probe.head.weight, probe.head.weight)


def test_weights_without_noise_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    layers = [
        nn.ConvTranspose2d(1, 2, 2),
        nn.Conv2d(2, 3, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 3),
    ]
    probe = ProbeNetwork.from_module(nn.Sequential(*layers).double(), input_size=(1, 8, 8))
    with caplog.at_level(logging.INFO, "t2v_lightning"):
        embedding = embed(striped(20), probe, **SHORT, progress=False)
    said = [r.getMessage() for r in caplog.records if "no noise" in r.getMessage()]
    assert said == ["no noise on 0.weight (used by ConvTranspose)"]
    assert list(embedding.layers) == ["1"]


def test_embeddings_of_different_methods_do_not_compare() -> None:
    task = striped(30)
    variational = module().embed(task, progress=False)
    montecarlo = Task2Vec(small_probe(), head=HEAD).embed(task, progress=False)
    assert (montecarlo.scale == 1).all()
    with pytest.raises(ValueError, match="method"):
        pdist([variational, montecarlo])
    assert pdist([variational, variational], "normalized_cosine")[0, 1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "montecarlo", "beta": 1e-3},
        {"method": "variational", "passes": 2, "sampling": "sign"},
        {"method": "variational", "include": "weights+norm"},
    ],
)
def test_an_option_of_the_other_method_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="would have no effect with method="):
        Task2Vec(small_probe(), **options)


class Stem(nn.Module):
    """Two convolutions, of which the first may be hidden from the backward pass; images standardised at will."""

    def __init__(self, how: str = "plain") -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.aside, self.head, self.how = nn.BatchNorm2d(4), nn.Linear(4, 5), how

    def forward(self, x: torch.Tensor) -> Any:
        if self.how == "standardised":
            x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)
        if self.how == "no_grad":
            with torch.no_grad():
                y = self.first(x)
        elif self.how == "checkpoint":
            y = checkpoint(self.first, x, use_reentrant=False)
        else:
            y = self.first(x)
        if self.how == "aside":
            self.aside(y)
        return self.head(torch.tanh(self.second(torch.tanh(y))).mean((2, 3)))


def stem_module(how: str = "plain", **options: Any) -> Task2Vec:
    probe = ProbeNetwork.from_module(Stem(how).double().eval(), input_size=(1, 8, 8))
    return Task2Vec(probe, **SHORT | options)


@pytest.mark.parametrize("how", ["no_grad", "checkpoint"])
def test_a_layer_hidden_from_the_backward_pass_is_an_error(how: str) -> None:
    with pytest.raises(RuntimeError, match=r"'first' runs without gradients.*no_grad|checkpointing off"):
        stem_module(how).embed(striped(12), progress=False)


def test_the_network_is_looked_at_with_an_image_of_the_task() -> None:
    """One of zeros has no standard deviation."""
    assert list(stem_module("standardised").embed(striped(12), progress=False).layers) == ["first", "second"]


def test_a_norm_that_does_not_reach_the_output_stays_as_it_is() -> None:
    t2v = stem_module("aside", update_norm=True)
    t2v.embed(striped(12), progress=False)
    noise: Any = t2v.plan.learned
    assert [p.detach().unique().tolist() for p in noise.affine] == [[1.0], [0.0]]


@pytest.mark.parametrize("factor", [0.0, 1e-8])
def test_a_layer_of_no_weight_does_not_count_as_drowned(factor: float) -> None:
    t2v = stem_module()
    with torch.no_grad():
        t2v.probe.get_parameter("backbone.second.weight").mul_(factor)
    assert np.isfinite(t2v.embed(striped(12), progress=False).fisher).all()


def test_a_probe_in_half_precision_is_an_error() -> None:
    probe = small_probe().bfloat16()
    with pytest.raises(ValueError, match=r"probe is in bfloat16.*probe.float\(\)"):
        Task2Vec(probe, **SHORT).embed(striped(12, double=False), progress=False)


def test_a_head_that_diverges_is_an_error_and_a_poor_one_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FloatingPointError, match=r"diverged.*head_lr \(now 10000\)"):
        module(init="reference", head_lr=1e4).embed(striped(12), progress=False)
    module(init="reference", head_lr=100.0).embed(striped(12), progress=False)
    assert "no better than chance" in caplog.text
