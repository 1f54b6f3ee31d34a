"""The callback measures a training run and leaves it as it was."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging
from runs import run_script
from small_probe import small_module, striped
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler

from t2v_lightning import Embedding, ProbeNetwork, Task2VecCallback, embed
from t2v_lightning.functional.distances import pdist
from t2v_lightning.phases import HeadOptions
from t2v_lightning.task2vec.network_copy import copy_network

QUICK: dict[str, Any] = {"head": HeadOptions(epochs=1, num_samples=64), "max_samples": 16}


class Augmented(Dataset[Any]):
    """Noise from every global generator on each image, as augmentations draw it."""

    def __init__(self, n: int = 24) -> None:
        self.items = striped(n, double=False)
        self.targets = [label for _, label in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        image, label = self.items[i]
        noise = torch.randn(1) + random.random() + np.random.rand()  # noqa: NPY002
        return image + 0.1 * float(noise), label


class Somebodys(LightningModule):
    """A training with all that could give a passer-by away: BatchNorm, dropout, a hook, kept losses."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = small_module(classes)
        self.net.insert(5, nn.Dropout(0.3))
        self.net.train()
        self.seen, self.losses = list[int](), list[Tensor]()
        self.net[0].register_forward_hook(lambda module, inputs, output: self.seen.append(len(output)))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(loss)
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


class History(Callback):
    """What was logged at each epoch, the network then, and its embedding."""

    def __init__(self, tracker: Task2VecCallback | None = None) -> None:
        self.tracker, self.embeddings = tracker, dict[int, Embedding]()
        self.numbers: dict[int, dict[str, float]] = {}
        self.networks: dict[int, nn.Module] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.networks[trainer.current_epoch] = copy_network(pl_module.net)  # type: ignore[arg-type]
        if self.tracker is not None and self.tracker.embedding is not None:
            self.embeddings[trainer.current_epoch] = self.tracker.embedding
        self.numbers[trainer.current_epoch] = {
            name.removeprefix("task2vec/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("task2vec/")
        }


def loader(dataset: Any = None, **options: Any) -> DataLoader[Any]:
    return DataLoader(Augmented() if dataset is None else dataset, batch_size=8, shuffle=True, **options)


def seeded() -> None:
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002


def train(
    module: LightningModule,
    callbacks: list[Callback],
    epochs: int = 2,
    data: Any = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    seeded()
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=callbacks, logger=False, enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks)} | (settings or {}),
    )  # fmt: skip
    trainer.fit(module, loader() if data is None else data, **options)
    return trainer


def traces(module: Somebodys, trainer: Trainer) -> dict[str, Any]:
    """All of a run that the callback could have touched."""
    return {
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "gradients": [None if p.grad is None else p.grad.tolist() for p in module.parameters()],
        "optimizer": [str(o.state_dict()) for o in trainer.optimizers],
        "modes": [m.training for m in module.modules()],
        "frozen": [p.requires_grad for p in module.parameters()],
        "hooks": [len(m._forward_hooks) for m in module.modules()],
        "passes": module.seen,
        "losses": [float(loss.detach()) for loss in module.losses],
        "logged": {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.startswith("task2vec/")
        },
        "random": (torch.rand(1).item(), random.random(), np.random.rand()),  # noqa: NPY002
        "grad mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("method", ["montecarlo", "variational"])
def test_the_run_is_the_same_with_and_without(workers: int, method: str) -> None:
    options = {**QUICK, **({"num_samples": 32, "epochs": 1} if method == "variational" else {})}
    found = []
    for callbacks in ([], [Task2VecCallback(method=method, **options)]):
        module = Somebodys()
        data = loader(num_workers=workers, persistent_workers=workers > 0)
        found.append(traces(module, train(module, list(callbacks), data=data)))
        assert all((c.embedding is not None) for c in callbacks)
    for name in found[0]:
        assert found[0][name] == found[1][name], name
    assert found[0]["passes"] == [8] * 6
    assert found[0]["logged"].keys() == {"loss", "loss_step", "loss_epoch"}


class ByHand(Somebodys):
    """Steps its optimizer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        optimizer.step()
        return loss


RUNS: dict[str, tuple[type[Somebodys], dict[str, Any], Callable[[], list[Callback]]]] = {
    "bfloat16": (Somebodys, {"precision": "bf16-mixed"}, list),
    "clipped": (Somebodys, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}, list),
    "validated at every batch": (Somebodys, {"val_check_interval": 1}, list),
    "by hand": (ByHand, {}, list),
    "averaged weights": (Somebodys, {}, lambda: [StochasticWeightAveraging(0.01, swa_epoch_start=1)]),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_run_of_another_kind_is_the_same_with_and_without(case: str) -> None:
    kind, settings, callbacks = RUNS[case]
    found = []
    for tracker in ([], [Task2VecCallback(**QUICK)]):
        module, validation = kind(), loader(striped(8, double=False))
        trainer = train(module, [*tracker, *callbacks()], 3, loader(), settings, val_dataloaders=validation)
        found.append(traces(module, trainer))
    for name in found[0]:
        assert found[0][name] == found[1][name], name


@pytest.mark.parametrize("joined", ["from the start", "after the resume"])
def test_a_resumed_run_is_the_same_with_and_without(tmp_path: Path, joined: str) -> None:
    """One epoch, a checkpoint, and two epochs more by a new module that only the checkpoint connects to the first."""
    found = []
    for name in ("without", "with"):
        for epochs in (1, 3):
            tracked = name == "with" and (epochs == 3 or joined == "from the start")
            tracker = [Task2VecCallback(**QUICK)] if tracked else []
            checkpoint = ModelCheckpoint(tmp_path / name, save_last=True)
            module = Somebodys()
            resumed = {"ckpt_path": str(tmp_path / name / "last.ckpt")} if epochs == 3 else {}
            trainer = train(module, [*tracker, checkpoint], epochs, loader(), **resumed)
        found.append(traces(module, trainer))
        saved = torch.load(tmp_path / name / "last.ckpt", weights_only=True)
        found[-1]["checkpoint"] = str(
            {key: saved[key] for key in ("state_dict", "optimizer_states", "loops")}
        )
    assert found[0]["passes"] == [8] * 6  # of the two epochs after the resume
    for part in found[0]:
        assert found[0][part] == found[1][part], part


def test_norm_and_drift_are_those_of_the_network_at_that_epoch() -> None:
    items = striped(24, double=False)
    tracker, history = Task2VecCallback(2, distance="jsd", max_samples=None, head=QUICK["head"]), History()
    train(Somebodys(), [tracker, history], epochs=5, data=loader(items))
    assert [sorted(numbers) for numbers in history.numbers.values()] == [
        [], ["norm"], ["norm"], ["drift", "norm"], ["drift", "norm"],
    ]  # fmt: skip
    expected = []
    for epoch in (1, 3):
        probe = ProbeNetwork.from_module(history.networks[epoch], input_size=(1, 8, 8))
        expected.append(embed(items, probe, head=QUICK["head"], progress=False))
        assert history.numbers[epoch]["norm"] == pytest.approx(expected[-1].norm, rel=1e-5)
    assert tracker.embedding is not None
    np.testing.assert_allclose(tracker.embedding.fisher, expected[1].fisher, rtol=1e-4)
    assert (tracker.embedding.meta["epoch"], tracker.embedding.meta["dataset"]) == (3, "list")
    drift = pdist([e.fisher for e in expected], "jsd")[0, 1]
    assert drift > 1e-3
    assert history.numbers[3]["drift"] == pytest.approx(drift, rel=1e-3)
    assert history.numbers[4] == history.numbers[3]  # nothing new at an epoch in between


def test_a_network_that_stands_still_does_not_drift() -> None:
    """Augmented images too: every embedding sees the same draws."""

    class Still(Somebodys):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

        def on_train_start(self) -> None:
            self.net[1].momentum = 0.0  # type: ignore[union-attr]

    history = History()
    train(Still(), [Task2VecCallback(**QUICK), history], epochs=2)
    assert history.numbers[1]["drift"] == pytest.approx(0, abs=1e-9)
    assert history.numbers[1]["norm"] == history.numbers[0]["norm"]


@pytest.mark.parametrize("validated", [False, True])
def test_a_resumed_run_drifts_from_where_it_was(tmp_path: Path, validated: bool) -> None:
    """From a checkpoint at the end of an epoch, and from one at its validation, before the callback's turn."""

    def run(epochs: int, **options: Any) -> History:
        tracker = Task2VecCallback(**QUICK)
        history = History(tracker)
        checkpoint = ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=not validated)
        data = {"val_dataloaders": loader(striped(8, double=False))} if validated else {}
        train(Somebodys(), [tracker, history, checkpoint], epochs, loader(), **data, **options)
        return history

    first = run(2)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)  # holds nothing but plain data
    assert json.loads(saved["callbacks"]["Task2VecCallback"]["meta"])["epoch"] == (0 if validated else 1)
    second = run(3, ckpt_path=str(tmp_path / "last.ckpt"))
    assert list(second.numbers) == ([1, 2] if validated else [2])
    assert second.numbers[2].keys() == {"norm", "drift"}
    before, after = first.embeddings[1].fisher, second.embeddings[2].fisher
    assert second.numbers[2]["drift"] == pytest.approx(pdist([before, after])[0, 1], rel=1e-6)
    if validated:
        assert second.numbers[1] == first.numbers[1]


def test_the_last_embedding_outlives_a_test() -> None:
    tracker = Task2VecCallback(**QUICK)
    trainer = train(Somebodys(), [tracker], epochs=1)
    embedding = tracker.embedding
    assert embedding is not None
    trainer.validate(Somebodys(), loader(), verbose=False)
    assert tracker.embedding is embedding


def test_a_loader_over_a_part_of_its_dataset() -> None:
    items, part = striped(24, double=False), list(range(0, 24, 2))
    module, tracker = Somebodys(), Task2VecCallback(head="lbfgs")
    train(module, [tracker], 1, DataLoader(items, batch_size=4, sampler=SubsetRandomSampler(part)))
    probe = ProbeNetwork.from_module(copy_network(module.net), input_size=(1, 8, 8))
    expected = embed(Subset(items, part), probe, max_samples=1000, head="lbfgs", progress=False)
    assert tracker.embedding is not None
    assert tracker.embedding.meta["samples"] == 12
    np.testing.assert_allclose(tracker.embedding.fisher, expected.fisher, rtol=1e-5)


def test_the_state_goes_through_a_checkpoint_whole() -> None:
    tracker = Task2VecCallback(**QUICK)
    assert tracker.state_dict() == {}
    train(Somebodys(), [tracker], epochs=1)
    other = Task2VecCallback()
    other.load_state_dict(tracker.state_dict())
    assert other.embedding == tracker.embedding


# --- two processes -------------------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from small_probe import striped
from test_tracking import QUICK, Augmented, Somebodys, loader, seeded, traces
from t2v_lightning import ProbeNetwork, Task2VecCallback, embed
from t2v_lightning.functional.distances import pdist
from t2v_lightning.task2vec.network_copy import copy_network

def run(data, epochs, tracker=None, **options):
    callbacks = [ModelCheckpoint({folder!r}, save_last=True)] + ([tracker] if tracker else [])
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=epochs, logger=False,
                      callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False)
    module = Somebodys()
    seeded()
    trainer.fit(module, loader(data), **options)
    assert torch.distributed.get_world_size() == 2
    return module, trainer

# the run itself, with dropout and augmented images
with_it, without = (traces(*run(Augmented(15), 2, tracker)) for tracker in (Task2VecCallback(**QUICK), None))
for name in with_it:
    assert with_it[name] == without[name], name

# the embedding, which the processes share
items, tracker = striped(15, double=False), Task2VecCallback(max_samples=None, head="lbfgs")
module, trainer = run(items, 2, tracker)
tracker.embedding.save({folder!r} + f"/rank{{trainer.global_rank}}.safetensors")
assert float(trainer.callback_metrics["task2vec/drift"]) > 0
if trainer.global_rank == 0:  # the network as the first process holds it, embedded by that one alone
    probe = ProbeNetwork.from_module(copy_network(module.net), input_size=(1, 8, 8))
    embed(items, probe, head="lbfgs", progress=False).save({folder!r} + "/alone.safetensors")

# drift goes on from where it was
resumed = Task2VecCallback(max_samples=None, head="lbfgs")
last = trainer.checkpoint_callback.last_model_path
trainer = run(items, 3, resumed, ckpt_path=trainer.strategy.broadcast(last))[1]
distance = pdist([tracker.embedding.fisher, resumed.embedding.fisher])[0, 1]
assert abs(float(trainer.callback_metrics["task2vec/drift"]) - distance) < 1e-6 * distance
"""


def test_two_processes_share_the_images_and_go_on_as_before(tmp_path: Path) -> None:
    """Fifteen images, so that their shares differ; BatchNorm's statistics differ between the processes."""
    run_script(SCRIPT, tmp_path)
    one, two, alone = (Embedding.load(tmp_path / f"{n}.safetensors") for n in ("rank0", "rank1", "alone"))
    assert one == two
    assert one.meta["samples"] == 15
    np.testing.assert_allclose(one.fisher, alone.fisher, rtol=1e-4)


# --- what is refused, before the first step ------------------------------------------------------------------


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(striped(8, double=False))


class Softmaxed(Somebodys):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)


class Holder(Somebodys):
    def __init__(self) -> None:
        super().__init__()
        self.file = open(__file__)  # noqa: SIM115


def pairs(items: list[Any]) -> Any:
    return {"images": torch.stack([image for image, _ in items])}


@pytest.mark.parametrize(
    ("module", "data", "options", "message"),
    [
        (Somebodys, lambda: DataLoader(Stream(), batch_size=4), {}, "map-style"),
        (Somebodys, lambda: [loader(), loader()], {}, "one DataLoader"),
        (Somebodys, lambda: loader(collate_fn=pairs), {}, r"makes a dict.*Task2VecCallback\(dataset="),
        (Softmaxed, loader, {}, "no final Linear head"),
        (Holder, loader, {}, "Holder cannot be copied.*name the part"),
        (Somebodys, loader, {"network": "model"}, "no network 'model'.*it holds net"),
        (Somebodys, loader, {"skip_layers": 30}, "leaves no weights"),
        (Somebodys, loader, {"max_samples": 2}, "cannot hold all 3 classes"),
    ],
)
def test_what_cannot_be_embedded_is_said_before_the_first_step(
    module: Any, data: Any, options: dict[str, Any], message: str
) -> None:
    run = module()
    with pytest.raises((TypeError, ValueError), match=message):
        train(run, [Task2VecCallback(**{**QUICK, **options})], data=data())
    assert run.losses == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs=0; it must be a whole number above 0"),
        ({"distance": "asymmetric"}, "unknown distance 'asymmetric' of a drift; allowed are cosine"),
        ({"sample": 3}, "unexpected keyword argument 'sample'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Task2VecCallback(**options)


def test_another_dataset_and_a_part_of_the_module() -> None:
    """What cannot be copied or collated is no hindrance where it is not needed."""
    items = striped(20, double=False)
    tracker = Task2VecCallback(network="net", dataset=items, head="lbfgs")
    module = Holder()
    train(module, [tracker], epochs=1)
    assert tracker.embedding is not None
    probe = ProbeNetwork.from_module(copy_network(module.net), input_size=(1, 8, 8))
    expected = embed(items, probe, max_samples=1000, head="lbfgs", progress=False)
    np.testing.assert_allclose(tracker.embedding.fisher, expected.fisher, rtol=1e-5)
    module.file.close()


# --- the copy ------------------------------------------------------------------------------------------------


def test_hooks_that_make_weights_are_copied_and_others_are_not() -> None:
    layer = nn.utils.prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=8)
    layer.register_forward_pre_hook(lambda module, inputs: pytest.fail("the run's hook saw the copy"))
    x = torch.randn(2, 4)
    copied = copy_network(layer)
    assert torch.equal(copied(x), nn.functional.linear(x, layer.weight, layer.bias))
    with torch.no_grad():
        copied.get_parameter("weight_orig").mul_(2)
    assert not torch.equal(copied(x), nn.functional.linear(x, layer.weight, layer.bias))  # computed anew


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_a_network_in_the_middle_of_a_step_can_be_copied(norm: Any) -> None:
    net = nn.Sequential(norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    x = torch.randn(2, 4)
    net(x).sum().backward()
    net.eval()
    assert torch.equal(copy_network(net)(x), net(x))
    assert all(p.grad is None for p in copy_network(net).parameters())
