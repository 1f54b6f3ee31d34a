"""The fitted head on images that the fit has not seen, against brute force on outputs of the probe."""

import copy
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from runs import KillAfter, Killed
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    log_loss,
    r2_score,
)
from small_fits import QUICK, Plain, quietly
from small_probe import small_probe
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from t2v_lightning import Embedding, Task2Vec, embed
from t2v_lightning.callbacks.checkpoint import BatchCheckpoint

SEEN, ALL = range(40), range(67)
HELD_OUT = range(40, 67)
Fitted = Callable[..., Task2Vec]


def images_of(count: int = len(ALL)) -> Tensor:
    return torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def labelled(likelihood: str) -> TensorDataset:
    """Targets that images say something about, but not all: classes 3, 7 and 40, labels of which one never occurs."""
    images = images_of()
    noise = torch.randn(len(ALL), 3, generator=torch.Generator().manual_seed(5))
    scores = 20 * images.mean((2, 3)) * torch.tensor([[1.0, -1.0, 0.5]]) + 0.7 * noise
    if likelihood == "softmax":
        return TensorDataset(
            images, torch.tensor([3, 7, 40])[(scores - torch.tensor([0.0, 0.0, 0.6])).argmax(1)]
        )
    if likelihood == "bernoulli":
        present = (scores > 0.2).double()
        present[list(HELD_OUT), 1] = 0
        return TensorDataset(images, present)
    return TensorDataset(images, 200 + 40 * scores[:, :2])


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """A module that `embed` has fitted to the seen images, made once for each likelihood and method."""
    made: dict[Any, Task2Vec] = {}

    def get(likelihood: Any = "softmax", method: Any = "montecarlo") -> Task2Vec:
        if (likelihood, method) not in made:
            options = {} if method == "montecarlo" else {"num_samples": 60, "epochs": 1, "update_norm": True}
            head: Any = "lbfgs" if likelihood == "softmax" else QUICK
            module = Task2Vec(small_probe(), method, likelihood=likelihood, head=head, **options)
            module.embed(Subset(labelled(likelihood), SEEN), progress=False)
            made[likelihood, method] = module
        return made[likelihood, method]

    return get


def loader(likelihood: str, **options: Any) -> DataLoader[Any]:
    return DataLoader(Subset(labelled(likelihood), HELD_OUT), **{"batch_size": 4, **options})


def outputs(module: Task2Vec, images: Tensor) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return copy.deepcopy(module.probe)(images).numpy()


def brute_force(module: Task2Vec, likelihood: str, balanced: bool = True) -> dict[str, float]:
    """What scikit-learn makes of the outputs, in its own terms."""
    images, targets = (tensor[list(HELD_OUT)] for tensor in labelled(likelihood).tensors)
    found, y = outputs(module, images), targets.numpy()
    if likelihood == "softmax":
        p = np.exp(found) / np.exp(found).sum(1, keepdims=True)
        guess, counts = np.array([3, 7, 40])[found.argmax(1)], {k: (y == k).sum() for k in y}
        weights = np.array([1 / counts[k] for k in y]) if balanced else None
        score = balanced_accuracy_score if balanced else accuracy_score
        return {"accuracy": score(y, guess), "loss": log_loss(y, p, sample_weight=weights)}
    if likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-found))
        loss = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1).mean()
        precision = average_precision_score(y[:, [0, 2]], p[:, [0, 2]])
        return {"loss": loss, "right_labels": ((p > 0.5) == y).mean(), "average_precision": precision}
    assert module.embedding is not None
    mean, std = (np.array(module.embedding.meta[name]) for name in ("target_mean", "target_std"))
    loss = 0.5 * (((y - mean) / std - found) ** 2).sum(1).mean()
    return {"loss": loss, "R2": r2_score((y - mean) / std, found, multioutput="variance_weighted")}


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_test_and_validate_are_brute_force(likelihood: str, fitted: Fitted) -> None:
    module, expected = fitted(likelihood), brute_force(fitted(likelihood), likelihood)
    before = copy.deepcopy(module.state_dict())
    trainer = quietly()
    (found,) = trainer.test(module, loader(likelihood), verbose=False)
    assert found == pytest.approx({f"test/{name}": value for name, value in expected.items()}, rel=1e-5)
    assert module.embedding is not None
    recorded = {"images": len(HELD_OUT), **expected}
    assert module.embedding.meta["test"] == pytest.approx(
        recorded, rel=1e-12 if likelihood == "softmax" else 1e-6
    )
    (validated,) = trainer.validate(module, loader(likelihood, batch_size=9), verbose=False)
    assert validated == pytest.approx({f"val/{name}": value for name, value in expected.items()}, rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not [p for p in module.probe.parameters() if p.is_inference()]


def test_classes_count_by_their_images_if_the_fit_is_not_balanced() -> None:
    module = Task2Vec(small_probe(), balanced=False, head="lbfgs")
    embedding = module.embed(
        Subset(labelled("softmax"), SEEN), test=Subset(labelled("softmax"), HELD_OUT), progress=False
    )
    expected = brute_force(module, "softmax", balanced=False)
    assert embedding.meta["test"] == pytest.approx({"images": len(HELD_OUT), **expected}, rel=1e-6)
    assert expected["accuracy"] != pytest.approx(brute_force(module, "softmax")["accuracy"], abs=1e-3)


def test_a_part_of_the_images_is_counted_as_such(fitted: Fitted) -> None:
    quietly(limit_test_batches=2).test(module := fitted(), loader("softmax"), verbose=False)
    assert module.embedding is not None
    assert module.embedding.meta["test"]["images"] == 8


@pytest.mark.parametrize("kind", [DataLoader, Plain])
def test_embed_takes_test_images_in_any_form(kind: Any, fitted: Fitted) -> None:
    class WithTest(Plain):
        def test_dataloader(self) -> DataLoader[Any]:
            return loader("softmax")

    task = Subset(labelled("softmax"), SEEN)
    test = loader("softmax") if kind is DataLoader else WithTest(task)
    embedding = embed(task, small_probe(), head="lbfgs", test=test, progress=False)
    expected = {"images": len(HELD_OUT), **brute_force(fitted(), "softmax")}
    assert embedding.meta["test"] == pytest.approx(expected, rel=1e-6)
    if kind is Plain:
        assert test.calls == ["prepare_data", "setup test"]
    plain = embed(task, small_probe(), head="lbfgs", progress=False)
    assert Embedding.__eq__(plain, embedding.with_meta(test=None)) is False
    assert np.array_equal(plain.fisher, embedding.fisher)


@pytest.mark.parametrize("by", ["embed", "trainer"])
def test_test_images_go_through_the_hooks_of_their_datamodule(by: str, fitted: Fitted) -> None:
    class Scaled(Plain):
        def test_dataloader(self) -> DataLoader[Any]:
            return DataLoader(
                Subset(TensorDataset(images_of() / 8, labelled("softmax").tensors[1]), HELD_OUT), 4
            )

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            assert self.trainer.training or self.trainer.testing
            self.stages = {*getattr(self, "stages", ()), "test" if self.trainer.testing else "fit"}
            return [8 * batch[0], batch[1]]

    images, labels = labelled("softmax").tensors
    data = Scaled(Subset(TensorDataset(images / 8, labels), SEEN))
    module = Task2Vec(small_probe(), head="lbfgs")
    if by == "embed":
        module.embed(data, test=data, progress=False)
    else:
        trainer = quietly(precision="64-true")
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
    assert data.stages == {"fit", "test"}
    assert module.embedding is not None
    expected = {"images": len(HELD_OUT), **brute_force(fitted(), "softmax")}
    assert module.embedding.meta["test"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli", "gaussian"])
def test_predictions_are_in_the_terms_of_the_dataset(likelihood: str, fitted: Fitted) -> None:
    module, images = fitted(likelihood), images_of()[list(HELD_OUT)]
    batches = quietly().predict(module, loader(likelihood))
    assert batches is not None
    found: dict[str, Tensor] = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}  # type: ignore[call-overload]
    assert found.pop("index").tolist() == list(range(len(HELD_OUT)))
    f = torch.from_numpy(outputs(module, images))
    assert module.embedding is not None
    mean, std = (torch.tensor(module.embedding.meta.get(name, 0.0)) for name in ("target_mean", "target_std"))
    expected: dict[str, Tensor] = {
        "softmax": {"label": torch.tensor([3, 7, 40])[f.argmax(1)], "probability": f.softmax(1)},
        "bernoulli": {"probability": f.sigmoid()},
        "gaussian": {"value": f * std + mean},
    }[likelihood]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)


class Unlabelled(Dataset[Tensor]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, item: int) -> Tensor:
        return images_of(5)[item]


def test_images_without_labels_have_predictions(fitted: Fitted) -> None:
    batches = quietly().predict(fitted(), DataLoader(Unlabelled(), batch_size=3))
    assert batches is not None
    labels = torch.cat([batch["label"] for batch in batches])  # type: ignore[call-overload]
    assert labels.tolist() == [[3, 7, 40][k] for k in outputs(fitted(), images_of(5)).argmax(1)]


def test_what_cannot_be_evaluated_is_an_error_that_says_why(fitted: Fitted) -> None:
    images = images_of(4)
    strange = TensorDataset(images, torch.tensor([3, 8, 7, 9]))
    with pytest.raises(
        ValueError, match=r"2 of 4 items .* has not seen: 8, 9\. Its classes are 3, 7, 40\. Leave"
    ):
        quietly().test(fitted(), DataLoader(strange), verbose=False)
    with pytest.raises(ValueError, match="has not seen: 8, 9"):  # before the fit
        embed(task := HardlyRead(), small_probe(), test=strange, progress=False)
    assert task.read < len(task)
    with pytest.raises(ValueError, match="have 2 numbers, and those of the fit have 3"):
        quietly().test(
            fitted("bernoulli"), DataLoader(TensorDataset(images, torch.ones(4, 2))), verbose=False
        )
    with pytest.raises(TypeError, match=r"Trainer\.test was given no data; pass datamodule="):
        quietly().test(fitted(), verbose=False)
    with pytest.raises(
        TypeError, match=r"one DataLoader over a map-style dataset for Trainer\.validate, got list"
    ):
        quietly().validate(fitted(), [loader("softmax")] * 2, verbose=False)
    with pytest.raises(
        RuntimeError, match=r"Trainer\.predict needs a fitted Task2Vec; call Trainer\.fit or embed"
    ):
        quietly().predict(Task2Vec(small_probe()), loader("softmax"))
    with pytest.raises(ValueError, match=r"precision='bf16-true'\) does not work with Task2Vec: it rounds"):
        quietly(precision="bf16-true").test(fitted(), loader("softmax"), verbose=False)


class HardlyRead(Dataset[Any]):
    targets = [3, 7, 40] * 20
    read = 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, item: int) -> Any:
        self.read += 1
        return images_of(1)[0], self.targets[item]


def test_a_fit_leaves_validation_to_the_user(fitted: Fitted) -> None:
    """Before the head is fitted there is nothing to validate."""
    module, trainer = Task2Vec(small_probe(), head="lbfgs"), quietly(precision="64-true", limit_val_batches=3)
    trainer.fit(module, DataLoader(Subset(labelled("softmax"), SEEN), batch_size=8), loader("softmax"))
    assert trainer.limit_val_batches == 3
    assert "val/loss" not in trainer.callback_metrics
    assert module.embedding is not None
    assert "test" not in module.embedding.meta
    trainer.validate(module, loader("softmax"), verbose=False)
    assert "val/loss" in trainer.callback_metrics


def test_a_network_that_was_trained_under_noise_is_evaluated_without(fitted: Fitted) -> None:
    """With the affine parameters that it has learned along."""
    module = fitted("softmax", "variational")
    (found,) = quietly().test(module, loader("softmax"), verbose=False)
    changed = copy.deepcopy(module)
    norm = changed.probe.backbone[1]
    learned = changed.plan.learned.affine  # type: ignore[union-attr]
    assert [len(learned), type(norm).__name__] == [2, "BatchNorm2d"]
    norm.weight.data, norm.bias.data = learned[0].data, learned[1].data
    assert found["test/loss"] == pytest.approx(brute_force(changed, "softmax")["loss"], rel=1e-5)
    assert found["test/loss"] != pytest.approx(brute_force(module, "softmax")["loss"], rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
@pytest.mark.parametrize("batches", [7, 99], ids=["killed in its second epoch", "killed before the test"])
@pytest.mark.parametrize("method", ["montecarlo", "variational"])
def test_a_resumed_fit_is_evaluated_like_a_whole_one(method: Any, batches: int, tmp_path: Path) -> None:
    options = {} if method == "montecarlo" else {"num_samples": 60, "epochs": 1, "update_norm": True}
    for kill in (batches, 99):
        module = Task2Vec(small_probe(), method, head="lbfgs", **options)
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[KillAfter(kill), BatchCheckpoint(tmp_path, 1)], precision="64-true",
        )  # fmt: skip
        with suppress(Killed):
            trainer.fit(module, DataLoader(Subset(labelled("softmax"), SEEN), batch_size=8), ckpt_path="last")
    assert module.embedding is not None
    trainer.test(module, loader("softmax"), verbose=False)
    whole = Task2Vec(small_probe(), method, head="lbfgs", **options)
    whole.embed(Subset(labelled("softmax"), SEEN), batch_size=8, test=loader("softmax"), progress=False)
    assert whole.embedding is not None
    assert module.embedding.meta["test"] == pytest.approx(whole.embedding.meta["test"], rel=1e-6)
    with pytest.raises(RuntimeError, match="without ckpt_path"):
        trainer.test(module, loader("softmax"), ckpt_path=str(tmp_path / "last.ckpt"), verbose=False)


def test_an_error_that_ends_a_fit_or_a_test_leaves_the_next_one_alone() -> None:
    broken = [
        (image * torch.nan if n == 9 else image, label)
        for n, (image, label) in enumerate(labelled("softmax"))
    ]
    module, trainer = Task2Vec(small_probe(), head="lbfgs"), quietly(precision="64-true")
    with pytest.raises(ValueError, match="image 9 of the dataset holds NaN"):
        trainer.fit(module, DataLoader(broken, batch_size=8))
    assert trainer.limit_val_batches == 1.0
    with pytest.raises(RuntimeError, match="needs a fitted Task2Vec"):
        trainer.test(module, loader("softmax"), verbose=False)
    quietly(precision="64-true").fit(module, DataLoader(Subset(labelled("softmax"), SEEN), batch_size=8))
    trainer = quietly()
    with pytest.raises(ValueError, match="image 9 of the dataset holds NaN"):
        trainer.test(module, DataLoader(broken, batch_size=8), verbose=False)
    assert trainer.test(module, loader("softmax"), verbose=False)
