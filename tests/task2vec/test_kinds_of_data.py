"""Datasets, loaders and datamodules of users, and which of their settings are kept."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_fits import EXACT, QUICK, Plain, fit, relative, run_module, task
from small_probe import small_probe
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from t2v_lightning import Task2Vec, embed


def test_somebodys_loader_and_datamodule_give_what_the_dataset_gives() -> None:
    items = task()
    expected = embed(items, small_probe(), progress=False, **EXACT)
    loader = DataLoader(items, batch_size=7, shuffle=True, drop_last=True)
    assert relative(fit(Task2Vec(small_probe(), **EXACT), loader, precision="64-true"), expected) < 1e-9
    assert relative(embed(loader, small_probe(), progress=False, **EXACT), expected) < 1e-9
    module = Plain(items)
    assert relative(fit(Task2Vec(small_probe(), **EXACT), module, precision="64-true"), expected) < 1e-9
    embedded = Plain(items)
    assert relative(Task2Vec(small_probe(), **EXACT).embed(embedded, progress=False), expected) < 1e-9
    assert embedded.calls == ["prepare_data", "setup fit"]


def wide(items: list[Any]) -> Any:
    """Cuts images to one size, as a collate function may."""
    return torch.stack([image[:, :8, :8] for image, _ in items]), torch.tensor([int(y) for _, y in items])


@pytest.mark.parametrize("run", ["embed", "fit"])
def test_somebodys_collate_function_is_used_either_way(run: str) -> None:
    items = [(torch.cat([x, x[:, : i % 2 * 3]], 1), y) for i, (x, y) in enumerate(task())]
    data, module = Plain(items, collate_fn=wide), Task2Vec(small_probe(), **EXACT)
    assert (
        relative(run_module(module, data, run), embed(task(), small_probe(), progress=False, **EXACT)) < 1e-9
    )
    if run == "embed":
        loader = data.train_dataloader()
        assert (
            module.embed(loader, progress=False).fisher.tolist()
            == module.embed(data, progress=False).fisher.tolist()
        )


def test_a_loader_with_workers_and_a_batch_sampler() -> None:
    items = task()
    sampler = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(items), 4, drop_last=True)
    loader = DataLoader(items, batch_sampler=sampler, num_workers=1, persistent_workers=True)
    module = Task2Vec(small_probe(), **EXACT)
    assert (
        relative(
            fit(module, loader, precision="64-true"), embed(items, small_probe(), progress=False, **EXACT)
        )
        < 1e-9
    )
    assert module.plan.reader.options.batch_size == 4
    assert module.plan.reader.options.persistent_workers


@pytest.mark.parametrize("run", ["embed", "fit"])
@pytest.mark.parametrize("kind", ["loader", "list of items", "batch sampler", "datamodule"])
def test_a_loader_over_a_part_of_its_dataset(run: str, kind: str) -> None:
    """The other part is often that for validation."""
    items, part = task(40), list(range(0, 40, 2))
    sampler = torch.utils.data.SubsetRandomSampler(part)
    options: dict[str, Any] = {"sampler": sampler, "shuffle": None}
    if kind == "list of items":
        options["sampler"] = part
    if kind == "batch sampler":
        batches = torch.utils.data.BatchSampler(sampler, 4, drop_last=True)
        options = {"batch_sampler": batches, "shuffle": None, "batch_size": 1}
    data: Any = Plain(items, **options)
    data.train = items
    module = Task2Vec(small_probe(), **EXACT)
    embedding = run_module(module, data if kind == "datamodule" else data.train_dataloader(), run)
    assert embedding.meta["samples"] == 20
    assert relative(embedding, embed(Subset(items, part), small_probe(), progress=False, **EXACT)) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_images_come_to_the_precision_of_the_probe_either_way(dtype: torch.dtype) -> None:
    items = [(x.to(dtype), y) for x, y in task()]
    module = Task2Vec(small_probe(double=False), **EXACT)
    assert (
        relative(fit(module, items), embed(items, small_probe(double=False), progress=False, **EXACT)) < 1e-4
    )


def test_pil_images_get_the_probes_own_transform() -> None:
    class Pictures(Dataset[Any]):
        targets = [0, 1] * 4

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            return Image.fromarray(
                np.random.default_rng(index).integers(0, 255, (9, 12), np.uint8)
            ), index % 2

    probe = small_probe(double=False)
    tensors = [(probe.transform(image), y) for image, y in (Pictures()[i] for i in range(8))]
    assert embed(Pictures(), probe, head=QUICK, progress=False).fisher.tolist() == (
        embed(tensors, probe, head=QUICK, progress=False).fisher.tolist()
    )


def test_parts_of_datasets() -> None:
    items = task()
    part = Subset(items, list(range(0, 24, 2)))
    expected = embed([items[i] for i in part.indices], small_probe(), progress=False, **EXACT)
    assert relative(embed(part, small_probe(), progress=False, **EXACT), expected) < 1e-9
    halves: Any = ConcatDataset([Subset(items, list(range(12))), Subset(items, list(range(12, 24)))])
    whole = embed(items, small_probe(), progress=False, **EXACT)
    assert relative(embed(halves, small_probe(), progress=False, **EXACT), whole) < 1e-9
