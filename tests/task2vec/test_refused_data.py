"""Data that cannot be embedded: what is said about it, and when."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from small_fits import QUICK, quietly, task
from small_probe import small_probe
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from t2v_lightning import Task2Vec, embed


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(task(8))


class SizedStream(Stream):
    def __len__(self) -> int:
        return 8


X = torch.zeros(1, 8, 8)


class Labelled(Dataset[Any]):
    """Its labels can be read without its items."""

    targets = [0, 1] * 4

    def __init__(self, item: Callable[[Tensor], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return self.item(X)


BAD_DATA: dict[str, tuple[Any, type[Exception], str]] = {
    "stream": (Stream(), TypeError, r"must be map-style.*got Stream.*pass max_samples="),
    "stream with a length": (SizedStream(), TypeError, r"must be map-style.*got SizedStream"),
    "empty": ([], ValueError, "the dataset is empty"),
    "one class": ([(X, 3), (X, 3)], ValueError, "the one label 3"),
    "float targets": ([(X, 0.0), (X, 1.0)], TypeError, "one integer class"),
    "no labels": ([X, X], TypeError, r"not a pair \(image, target\)"),
    "no targets": ([(X, None), (X, None)], TypeError, "cannot be read as numbers"),
    "NaN": ([(X, 0), (X / 0, 1)], ValueError, "image 1 of the dataset holds NaN"),
    "channels": (
        [(X.expand(3, 8, 8), 0), (X, 1)],
        ValueError,
        r"float32 \[3, 8, 8\]; the probe 'small' takes",
    ),
    "a dict an image": (
        Labelled(lambda x: {"image": x, "label": 0}),
        TypeError,
        r"item 0 of .* is a dict of image, label, not a pair .*pass image_key= and target_key= to embed",
    ),
    "three an image": (Labelled(lambda x: (x, 0, 7)), TypeError, "item 0 of .* is a tuple of 3, not a pair"),
    "images alone": (
        Labelled(lambda x: x),
        TypeError,
        r"item 0 of .* is a Tensor of shape \(1, 8, 8\), not a pair",
    ),
    "bytes": ([(X.byte(), 0), (X.byte(), 1)], ValueError, "image 0 of the dataset is a torch.uint8"),
    "arrays": ([(X.numpy(), 0), (X.numpy(), 1)], TypeError, "PIL image, got ndarray"),
    "shapes": ([(X, 0), (torch.zeros(1, 9, 8), 1)], ValueError, "differ in shape"),
    "a bytes image later": ([(X, 0), (X.byte(), 1)], ValueError, "image 1 of the dataset is a torch.uint8"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_datasets_that_cannot_be_embedded(case: str) -> None:
    dataset, error, text = BAD_DATA[case]
    module = Task2Vec(small_probe(double=False), max_samples=None, head=QUICK)
    with pytest.raises(error, match=text):
        module.embed(dataset, progress=False)
    assert module.embedding is None


@pytest.mark.parametrize("case", ["stream", "stream with a length", "one class", "no labels", "NaN"])
def test_a_trainer_tells_the_same(case: str) -> None:
    dataset, error, text = BAD_DATA[case]
    module = Task2Vec(small_probe(double=False), max_samples=None, head=QUICK)
    with pytest.raises(error, match=text):
        quietly().fit(module, DataLoader(dataset, batch_size=2))


LOADERS: dict[str, Callable[[DataLoader[Any]], Any]] = {
    "list": lambda loader: [loader, loader],
    "dict": lambda loader: {"one": loader},
    "CombinedLoader": lambda loader: CombinedLoader([loader, loader], "sequential"),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_several_loaders_are_refused(kind: str) -> None:
    loaders = LOADERS[kind](DataLoader(task(double=False)))
    with pytest.raises(TypeError, match=f"one DataLoader.*got {kind}"):
        quietly().fit(Task2Vec(small_probe(double=False)), loaders)


def test_a_fit_without_data_is_refused() -> None:
    with pytest.raises(TypeError, match="given no data; pass datamodule="):
        quietly().fit(Task2Vec(small_probe(double=False)))


COLLATED: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "a dict": (lambda x, y: {"image": x, "label": y}, "6 items into a dict of image: float32"),
    "images alone": (lambda x, y: x, r"6 items into a Tensor of float32 \[6, 1, 8, 8\];"),
    "targets first": (lambda x, y: (y, x), r"6 items into a tuple of \(int64 \[6\], float32"),
    "fewer images": (
        lambda x, y: (x[:2], y[:2]),
        r"6 items into a tuple of \(float32 \[2, 1, 8, 8\], int64 \[2\]\);",
    ),
}


@pytest.mark.parametrize("case", COLLATED)
def test_batches_of_another_form_are_refused(case: str) -> None:
    make, text = COLLATED[case]

    def collate(items: list[Any]) -> Any:
        return make(*torch.utils.data.default_collate(items))

    loader = DataLoader(task(double=False), batch_size=6, collate_fn=collate)
    with pytest.raises(TypeError, match=text):
        quietly().fit(Task2Vec(small_probe(double=False), head=QUICK), loader)


def test_labels_beyond_the_head() -> None:
    items = [(x, y + 4) for x, y in task()]
    for options in ({"head": "keep"}, {"num_classes": 5}):
        with pytest.raises(ValueError, match=r"labels range over 4\.\.6 but the head has 5 outputs"):
            embed(items, small_probe(classes=5), progress=False, **options)


def test_fewer_images_than_classes() -> None:
    with pytest.raises(ValueError, match="max_samples=2 cannot hold all 3 classes"):
        embed(task(), small_probe(), max_samples=2, progress=False)
