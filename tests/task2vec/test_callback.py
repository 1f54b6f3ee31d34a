"""The callback logs norm and drift of the network that trains, also after a resume and in two processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_probe import striped
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler
from tracked_training import QUICK, History, Somebodys, loader, train

from t2v_lightning import Embedding, ProbeNetwork, Task2VecCallback, embed
from t2v_lightning.functional.distances import pdist
from t2v_lightning.probes.network_copy import copy_network


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
    assert tracker.history == [
        {"epoch": 1, "norm": pytest.approx(expected[0].norm, rel=1e-5)},
        {
            "epoch": 3,
            "norm": pytest.approx(expected[1].norm, rel=1e-5),
            "drift": pytest.approx(drift, rel=1e-3),
        },
    ]
    drifts, norms = tracker.plot().axes
    assert drifts.lines[0].get_xydata().tolist() == [[3, tracker.history[1]["drift"]]]
    assert norms.lines[0].get_xdata().tolist() == [1, 3]


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


def test_another_dataset_and_a_part_of_the_module() -> None:
    """What cannot be copied or collated does no harm where it is not needed."""
    items = striped(20, double=False)
    tracker = Task2VecCallback(network="net", dataset=items, head="lbfgs")
    module = Holder()
    train(module, [tracker], epochs=1)
    assert tracker.embedding is not None
    probe = ProbeNetwork.from_module(copy_network(module.net), input_size=(1, 8, 8))
    expected = embed(items, probe, max_samples=1000, head="lbfgs", progress=False)
    np.testing.assert_allclose(tracker.embedding.fisher, expected.fisher, rtol=1e-5)
    module.file.close()


def test_the_state_goes_through_a_checkpoint_whole() -> None:
    tracker = Task2VecCallback(**QUICK)
    assert tracker.state_dict() == {}
    with pytest.raises(ValueError, match="no embedding to draw"):
        tracker.plot()
    train(Somebodys(), [tracker], epochs=1)
    other = Task2VecCallback()
    other.load_state_dict(tracker.state_dict())
    assert other.embedding == tracker.embedding
    assert other.history == tracker.history
    assert len(other.history) == 1


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from small_probe import striped
from tracked_training import QUICK, Augmented, Somebodys, loader, seeded, traces
from t2v_lightning import ProbeNetwork, Task2VecCallback, embed
from t2v_lightning.functional.distances import pdist
from t2v_lightning.probes.network_copy import copy_network

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
if trainer.global_rank == 0:  # the network as the first process holds it, embedded by that process only
    probe = ProbeNetwork.from_module(copy_network(module.net), input_size=(1, 8, 8))
    embed(items, probe, head="lbfgs", progress=False).save({folder!r} + "/alone.safetensors")

# the drift continues from where it was
resumed = Task2VecCallback(max_samples=None, head="lbfgs")
last = trainer.checkpoint_callback.last_model_path
trainer = run(items, 3, resumed, ckpt_path=trainer.strategy.broadcast(last))[1]
distance = pdist([tracker.embedding.fisher, resumed.embedding.fisher])[0, 1]
assert abs(float(trainer.callback_metrics["task2vec/drift"]) - distance) < 1e-6 * distance
"""


@pytest.mark.slow
def test_two_processes_share_the_images_and_go_on_as_before(two_processes: Path) -> None:
    """Fifteen images, so that their shares differ; BatchNorm's statistics differ between the processes."""
    one, two, alone = (
        Embedding.load(two_processes / f"{n}.safetensors") for n in ("rank0", "rank1", "alone")
    )
    assert one == two
    assert one.meta["samples"] == 15
    np.testing.assert_allclose(one.fisher, alone.fisher, rtol=1e-4)


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
        ({"sample": 3}, "unknown option 'sample'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Task2VecCallback(**options)
