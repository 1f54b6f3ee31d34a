"""Streams are embedded like any other task, from a sample of their items."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import run_script
from small_fits import quietly
from small_probe import small_probe, striped
from torch.utils.data import DataLoader, IterableDataset

from t2v_lightning import Embedding, Task2Vec, embed, embed_many
from t2v_lightning.loading.streams import sample_stream

QUIET: dict[str, Any] = {"progress": False, "head": "lbfgs"}


class Stream(IterableDataset[Any]):
    def __init__(self, items: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def dicts() -> list[dict[str, Any]]:
    return [{"__key__": str(i), "png": x, "cls": y} for i, (x, y) in enumerate(striped(12))]


def collate(items: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([item["png"] for item in items]), torch.tensor([item["cls"] for item in items])


@pytest.fixture(scope="module")
def expected() -> Embedding:
    return embed(striped(12), small_probe(), **QUIET)


def same(one: Embedding, other: Embedding) -> None:
    np.testing.assert_allclose(one.fisher, other.fisher, rtol=1e-9)


def test_a_stream_that_fits_is_embedded_as_its_items_in_a_list(expected: Embedding) -> None:
    found = embed(Stream(striped(12)), small_probe(), max_samples=100, **QUIET)
    same(found, expected)
    assert (found.meta["dataset"], found.meta["stream_items"]) == ("Stream", 12)


def test_a_sample_is_embedded_as_its_items_in_a_list(tmp_path: Path) -> None:
    found = embed(Stream(striped(40)), small_probe(), max_samples=15, **QUIET, stream_cache=tmp_path)
    kept = list(sample_stream(Stream(striped(40)), tmp_path, 15))  # type: ignore[call-overload]
    assert (len(kept), found.meta["samples"], found.meta["stream_items"]) == (15, 15, 40)
    same(found, embed(kept, small_probe(), **QUIET))
    generator = (item for item in striped(40))
    same(embed(generator, small_probe(), max_samples=15, **QUIET), found)


@pytest.mark.parametrize("how", ["keys", "collate", "embed_many"])
def test_items_as_a_loader_takes_them(how: str, expected: Embedding) -> None:
    if how == "keys":
        found = embed(Stream(dicts()), small_probe(), image_key="png", target_key="cls", **QUIET)
        assert found.meta["dataset"] == "Stream"
    elif how == "collate":
        found = embed(DataLoader(Stream(dicts()), batch_size=5, collate_fn=collate), small_probe(), **QUIET)
    else:
        (found,) = embed_many([Stream(striped(12))], small_probe(), **QUIET)
    same(found, expected)


def test_images_are_kept_as_they_are_until_the_probe_transforms_them() -> None:
    images = [(Image.fromarray(np.full((8, 8), 9 * i, np.uint8)), i % 2) for i in range(10)]
    probe = small_probe()
    probe.transform = lambda image: torch.tensor(np.asarray(image)[None] / 255.0)
    same(embed(Stream(images), probe, **QUIET), embed(images, probe, **QUIET))


def test_a_streaming_dataset_of_hugging_face() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"what": datasets.ClassLabel(names=["a", "b"]), "picture": datasets.Image()})
    pictures = [Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)) for i in range(8)]
    rows = datasets.Dataset.from_dict(
        {"what": [i % 2 for i in range(8)], "picture": pictures}, features=features
    )
    probe = small_probe()
    probe.transform = lambda image: torch.tensor(np.asarray(image)[None, ..., 0] / 255.0)
    found = embed(rows.to_iterable_dataset(num_shards=2), probe, max_samples=100, **QUIET)
    same(found, embed(rows, probe, **QUIET))
    assert found.meta["dataset"] == "IterableDataset"


def test_a_trainer_embeds_a_stream(expected: Embedding, tmp_path: Path) -> None:
    module = Task2Vec(small_probe(), head="lbfgs")
    trainer = quietly(precision="64-true", default_root_dir=tmp_path)
    trainer.fit(module, DataLoader(Stream(striped(12)), batch_size=5))
    assert module.embedding is not None
    same(module.embedding, expected)
    del module, trainer
    gc.collect()
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import sys
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader
torch.set_num_threads(1)
sys.path[:0] = [{tests!r}, {tests!r} + "/task2vec"]
from small_probe import small_probe, striped
from test_stream_tasks import Stream
from t2v_lightning import Task2Vec
module = Task2Vec(small_probe(), head="lbfgs", max_samples=15)
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", precision="64-true", logger=False,
                  default_root_dir={folder!r}, enable_checkpointing=False, enable_model_summary=False)
trainer.fit(module, DataLoader(Stream(striped(40)), batch_size=5))
module.embedding.save({folder!r} + f"/rank{{trainer.global_rank}}.safetensors")
"""


@pytest.mark.slow
def test_two_processes_share_the_sample_of_a_stream(tmp_path: Path) -> None:
    run_script(SCRIPT, tmp_path)
    alone = embed(Stream(striped(40)), small_probe(), max_samples=15, **QUIET)
    for rank in (0, 1):
        same(Embedding.load(tmp_path / f"rank{rank}.safetensors"), alone)
    assert not [*tmp_path.glob("t2v-stream-*")]


def test_without_a_size_the_error_says_what_to_pass() -> None:
    with pytest.raises(TypeError, match=r"got Stream\. Of a stream a sample is embedded: pass max_samples="):
        embed(Stream(striped(12)), small_probe(), max_samples=None, **QUIET)
