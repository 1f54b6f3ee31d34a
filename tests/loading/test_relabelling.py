"""Labels are those of the items; collate functions and hooks that make others of them in a batch are refused."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from small_fits import EXACT, Plain, relative, run_module, task
from small_probe import small_probe
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from tracked_training import Somebodys, train

from t2v_lightning import Task2Vec, Task2VecCallback, embed

ITEMS = [(x, 2 * y + 3) for x, y in task(24)]
"""Their labels are 3, 5 and 7."""

SAME: dict[str, Callable[[Tensor], Any]] = {
    "renumbered": lambda y: (y - 3) // 2,
    "a vector for each": lambda y: torch.nn.functional.one_hot(y).float() * 0.9 + 0.01,
    "a column": lambda y: y[:, None].float(),
    "a list": lambda y: y.tolist(),
    "names": lambda y: [f"class {n}" for n in y],
    "nothing": lambda y: None,
}

JOINED = r"makes the one label 1.* of the labels [57]\.?0? and [57]\.?0?, but the labels of the dataset's own items"
OTHER: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "joined": (lambda y: (y > 3).long(), JOINED),
    "joined in place": (lambda y: y.gt_(3), JOINED),
    "joined in a list": (lambda y: (y > 3).long().tolist(), JOINED),
    "parted": (lambda y: torch.arange(len(y)), r"makes \d and \d of the one label"),
    "mixed": (
        lambda y: (
            torch.nn.functional.one_hot(y).float().lerp(torch.nn.functional.one_hot(y.flip(0)).float(), 0.3)
        ),
        r"makes \[.*\] and \[.*\] of the one label .* leave out of batches what mixes images",
    ),
}


def by_collate(change: Callable[[Tensor], Any], items: Any = ITEMS) -> Any:
    def collate(batch: Any) -> Any:
        x, y = default_collate(batch)
        return x, change(y)

    return DataLoader(items, batch_size=8, collate_fn=collate)


def by_hook(change: Callable[[Tensor], Any], items: Any = ITEMS) -> Any:
    class Hooked(Plain):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0], change(batch[1])

    return Hooked(items, batch_size=8)


WAYS = {"the loader's collate function": by_collate, "on_after_batch_transfer": by_hook}


@pytest.mark.parametrize("who", WAYS)
@pytest.mark.parametrize("case", SAME)
def test_labels_may_be_renumbered_or_written_otherwise(who: str, case: str) -> None:
    found = embed(WAYS[who](SAME[case]), small_probe(), progress=False, **EXACT)
    assert relative(found, embed(ITEMS, small_probe(), progress=False, **EXACT)) < 1e-9


@pytest.mark.parametrize("who", WAYS)
@pytest.mark.parametrize("case", OTHER)
def test_labels_may_not_be_joined_parted_or_mixed(who: str, case: str) -> None:
    change, message = OTHER[case]
    for run in ("embed", *(["fit"] if case == "joined" else [])):
        with pytest.raises(ValueError, match=f"{who} {message}"):
            run_module(Task2Vec(small_probe(), head="lbfgs"), WAYS[who](change), run)


@pytest.mark.parametrize("who", WAYS)
def test_nor_in_somebodys_own_training(who: str) -> None:
    def joined(y: Tensor) -> Tensor:
        return (y > 3).long()

    data = WAYS[who](joined, [(x.float(), y) for x, y in ITEMS])
    with pytest.raises(ValueError, match=f"{who} {JOINED}"):
        train(Somebodys(), [Task2VecCallback(head="lbfgs")], 1, data)


def test_names_for_labels_are_left_alone() -> None:
    """The list holds the numbers, the items their names."""

    class Named(list[Any]):
        targets: ClassVar = [y for _, y in ITEMS]

    named = Named((x, f"class {y}") for x, y in ITEMS)
    data = by_collate(lambda names: names, named)
    assert embed(data, small_probe(), progress=False, **EXACT).meta["classes"] == [3, 5, 7]


def test_a_hook_that_writes_into_its_batch_leaves_the_images_as_they_were() -> None:
    """Also where the collate function gives away the dataset's own tensors, which are read once for each phase."""

    class InPlace(Plain):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0].mul_(2).add_(1), batch[1]

    class Labelless(InPlace):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return super().on_before_batch_transfer(batch, dataloader_idx)[:1]

    def own_tensor(batch: Any) -> Any:
        ((x, y),) = batch
        return x[None], torch.tensor([y])

    before = [x.clone() for x, _ in ITEMS]
    data = Labelless(ITEMS, batch_size=1, collate_fn=own_tensor)
    found = embed(data, small_probe(), progress=False, **EXACT)
    assert all(torch.equal(x, was) for (x, _), was in zip(ITEMS, before, strict=True))
    expected = embed([(x * 2 + 1, y) for x, y in ITEMS], small_probe(), progress=False, **EXACT)
    assert relative(found, expected) < 1e-9
