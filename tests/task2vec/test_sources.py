"""Tasks and probes as people name them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer
from small_probe import small_probe, striped
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, Task2Vec, embed, embed_many
from t2v_lightning.data.errors import UnknownDataModuleError
from t2v_lightning.task2vec.sources import as_task


def as_dicts(pairs: Any) -> list[dict[str, Any]]:
    return [{"id": str(i), "picture": image, "kind": label} for i, (image, label) in enumerate(pairs)]


def same(one: Embedding, other: Embedding) -> bool:
    return np.array_equal(one.fisher, other.fisher)


def collate(items: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([item["picture"] for item in items]), torch.tensor([item["kind"] for item in items])


@pytest.fixture(scope="module")
def expected() -> Embedding:
    return embed(striped(12), small_probe(), progress=False)


def test_items_that_are_dicts_by_their_keys(expected: Embedding) -> None:
    found = embed(
        as_dicts(striped(12)), small_probe(), image_key="picture", target_key="kind", progress=False
    )
    assert same(found, expected)


def test_longer_tuples_by_their_positions(expected: Embedding) -> None:
    items = [(i, label, image) for i, (image, label) in enumerate(striped(12))]
    assert same(embed(items, small_probe(), image_key=2, target_key=1, progress=False), expected)


def test_items_that_the_loaders_own_collate_function_makes_pairs(expected: Embedding) -> None:
    loader = DataLoader(as_dicts(striped(12)), batch_size=5, collate_fn=collate)  # type: ignore[arg-type]
    found = embed(loader, small_probe(), progress=False)
    np.testing.assert_allclose(found.fisher, expected.fisher, rtol=1e-9)
    module = Task2Vec(small_probe())
    quiet: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", precision="64-true", enable_model_summary=False, **quiet)
    trainer.fit(module, loader)
    assert module.embedding is not None
    np.testing.assert_allclose(module.embedding.fisher, expected.fisher, rtol=1e-9)


def test_a_dataset_of_hugging_face_by_the_types_of_its_columns(expected: Embedding) -> None:
    datasets = pytest.importorskip("datasets")
    pictures = [Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)) for i in range(8)]
    labels = [i % 2 for i in range(8)]
    features = datasets.Features({"what": datasets.ClassLabel(names=["a", "b"]), "picture": datasets.Image()})
    rows = datasets.Dataset.from_dict({"what": labels, "picture": pictures}, features=features)
    probe = small_probe()
    probe.transform = lambda image: torch.tensor(np.asarray(image)[None, ..., 0] / 255.0)
    found = embed(rows, probe, progress=False)
    assert same(found, embed(list(zip(pictures, labels, strict=True)), probe, progress=False))
    with pytest.raises(
        TypeError, match=r"0 columns of type ClassLabel; pass target_key=, one of picture \(Image\)"
    ):
        embed(rows.remove_columns(["what"]), probe, progress=False)


def test_a_folder_and_a_name(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (8, 8), (20 * i, 0, 100)).save(tmp_path / name / f"{i}.png")
    probe = small_probe(double=False)
    probe.transform = lambda image: torch.tensor(np.asarray(image)[None, ..., 0] / 255.0).float()
    from_folder = embed(str(tmp_path), probe, progress=False, skip_layers=0)
    assert from_folder.meta["class_names"] == ["cat", "dog"]
    (found,) = embed_many([tmp_path], probe, progress=False)
    assert same(found, from_folder)


def test_a_folder_that_save_to_disk_wrote_is_told_from_one_of_images(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").touch()
    assert as_task(tmp_path).name == "hf"


def test_a_probe_by_its_name() -> None:
    assert Task2Vec("efficientnet_lite0").probe.name == "efficientnet_lite0"


def test_text_that_is_neither_a_path_nor_a_name() -> None:
    with pytest.raises(UnknownDataModuleError, match="did you mean 'digits'"):
        embed("digit", small_probe())
    with pytest.raises(FileNotFoundError, match=r"data/cats does not exist; give a folder"):
        embed("data/cats", small_probe())


def test_keys_that_lead_nowhere() -> None:
    items = as_dicts(striped(6))
    with pytest.raises(TypeError, match="image_key='picture' and target_key=None; give both"):
        embed(items, small_probe(), image_key="picture")
    with pytest.raises(KeyError, match="no 'image'; allowed are 'id', 'picture', 'kind'"):
        embed(items, small_probe(), image_key="image", target_key="kind")
    with pytest.raises(TypeError, match="are for datasets of dicts or tuples, got DataLoader"):
        embed(DataLoader(items), small_probe(), image_key="picture", target_key="kind")  # type: ignore[arg-type]
