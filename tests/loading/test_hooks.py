"""Hooks of datamodules and modules change batches alike for `embed`, a Trainer and the callback."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from small_fits import EXACT, Plain, fit, relative, run_module, task
from small_probe import small_probe
from torch import Tensor
from torch.utils.data import DataLoader
from tracked_training import Somebodys, train

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec, Task2VecCallback, embed
from t2v_lightning.probes.network_copy import copy_network

ITEMS = [(x * 3 + 1, y + 4) for x, y in task(24, double=False)]
"""Their labels are 4, 5 and 6, which positions do not reach at once."""


def changed(x: Tensor) -> Tensor:
    return ((x - 1) / 3).flip(-1) + 0.5


def by_hand() -> Any:
    return [(changed(x), y) for x, y in ITEMS]


class Before(Plain):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        assert set(y.tolist()) <= {4, 5, 6}, "the labels, not the positions"
        return changed(x), y


class Transfer(Plain):
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        batch[0] = changed(batch[0].to(device))
        return batch


class After(Plain):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return changed(x), torch.nn.functional.one_hot(y, 7).float()


class Parts(Before):
    """All three, each a part of the whole; the first in place."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0].sub_(1), batch[1]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return super().transfer_batch_to_device([batch[0] / 3, batch[1]], device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0].flip(-1) + 0.5, batch[1]


class Staged(Plain):
    """Changes batches as those of torchgeo do, by the stage of the Trainer."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer and self.trainer.training:
            return changed(batch[0]), batch[1]
        return batch


KINDS = [Before, Transfer, After, Parts, Staged]


def ours(double: bool = True) -> Any:
    return Task2Vec(small_probe(double=double), **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_datamodules_hooks_count_by_all_three_ways(kind: Any) -> None:
    expected = embed([(x.double(), y) for x, y in by_hand()], small_probe(), progress=False, **EXACT)
    data = kind(ITEMS)
    assert relative(ours().embed(data, progress=False), expected) < 1e-6
    assert data.trainer is None
    assert relative(fit(ours(), kind(ITEMS), precision="64-true"), expected) < 1e-6
    module, tracker = Somebodys(classes=7), Task2VecCallback(max_samples=None, **EXACT)
    train(module, [tracker], 1, kind(ITEMS))
    same_as_by_hand(tracker.embedding, module)


def test_a_datamodule_that_asks_its_trainer_for_more_than_the_stage() -> None:
    """Where it makes its loader, as ours do, it sees that there is none."""

    class Workers(Staged):
        def train_dataloader(self) -> DataLoader[Any]:
            workers = self.trainer.num_devices if self.trainer else 0
            self.options["num_workers"] = workers - workers
            return super().train_dataloader()

    class Warming(Plain):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] * self.trainer.current_epoch, batch[1]  # type: ignore[union-attr]

    expected = embed([(x.double(), y) for x, y in by_hand()], small_probe(), progress=False, **EXACT)
    assert relative(ours().embed(Workers(ITEMS), progress=False), expected) < 1e-6
    warming = Warming(ITEMS)
    with pytest.raises(
        AttributeError, match=r"asks for self.trainer.current_epoch, but there is no Trainer here"
    ):
        ours().embed(warming, progress=False)
    assert warming.trainer is None


def same_as_by_hand(found: Embedding | None, module: Somebodys) -> None:
    assert found is not None
    probe = ProbeNetwork.from_module(copy_network(module.net), input_size=(1, 8, 8))
    np.testing.assert_allclose(
        found.fisher, embed(by_hand(), probe, progress=False, **EXACT).fisher, rtol=1e-3, atol=1e-7
    )


class OfModule(Somebodys):
    def __init__(self) -> None:
        super().__init__(classes=7)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return changed(batch[0]), batch[1]


def test_a_modules_hooks_count_in_its_training_run() -> None:
    module, tracker = OfModule(), Task2VecCallback(max_samples=None, **EXACT)
    train(module, [tracker], 1, DataLoader(ITEMS, batch_size=8))
    same_as_by_hand(tracker.embedding, module)


class Own(Task2Vec):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return changed(batch[0]), batch[1]


@pytest.mark.parametrize("data", [ITEMS, Plain(ITEMS)], ids=["dataset", "datamodule"])
def test_hooks_of_a_subclass_of_the_module_count_too(data: Any) -> None:
    expected = embed([(x.double(), y) for x, y in by_hand()], small_probe(), progress=False, **EXACT)
    assert relative(Own(small_probe(), **EXACT).embed(data, progress=False), expected) < 1e-6
    assert relative(fit(Own(small_probe(), **EXACT), data, precision="64-true"), expected) < 1e-6


def test_another_dataset_of_the_callback_goes_through_its_own_hooks_only() -> None:
    for data in (by_hand(), Staged(ITEMS)):
        module, tracker = OfModule(), Task2VecCallback(dataset=data, max_samples=None, **EXACT)
        train(module, [tracker], 1, DataLoader(ITEMS, batch_size=8))
        same_as_by_hand(tracker.embedding, module)


def test_hooks_may_change_size_and_channels() -> None:
    class Grey(Plain):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0].mean(1, keepdim=True), batch[1]

    coloured = [(x.double().expand(3, 8, 8), y) for x, y in ITEMS]
    expected = embed([(x.double(), y) for x, y in ITEMS], small_probe(), progress=False, **EXACT)
    assert relative(ours().embed(Grey(coloured), progress=False), expected) < 1e-9


class Jitter(Plain):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]


@pytest.mark.parametrize("way", ["embed", "fit", "callback"])
@pytest.mark.parametrize("random", [True, False])
def test_random_hooks_are_warned_about_once(way: str, random: bool, caplog: pytest.LogCaptureFixture) -> None:
    data = (Jitter if random else After)(task(24, double=False) if way == "callback" else ITEMS)
    with caplog.at_level(logging.WARNING):
        if way == "embed":
            ours(double=False).embed(data, progress=False)
        elif way == "fit":
            fit(ours(double=False), data)
        else:
            train(Somebodys(), [Task2VecCallback(dataset=data, head="lbfgs")], 2)
    text = "(on_after_batch_transfer) are random, so the embedding will differ"
    assert caplog.text.count(text) == random


class OfTheBatch(Plain):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return (batch[0] - batch[0].mean()) / batch[0].std(), batch[1]


def test_hooks_that_mix_samples_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"\(on_after_batch_transfer\) change a sample with the others of its batch"
    ):
        ours(double=False).embed(OfTheBatch(ITEMS), progress=False)


@pytest.mark.parametrize("run", ["embed", "fit"])
def test_hooks_that_make_something_else_of_a_batch_are_refused(run: str) -> None:
    class Dicts(Plain):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return {"image": batch[0]}

    message = "on_after_batch_transfer makes a batch of 6 items into a dict of image.*needed is"
    with pytest.raises(TypeError, match=message):
        run_module(ours(), Dicts(ITEMS), run)
