"""Transforms that change images at random are warned about."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from small_fits import task
from small_probe import small_probe
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision import transforms
from torchvision.transforms import v2

from t2v_lightning import embed
from t2v_lightning.loading.random_transforms import warn_random_transforms

RANDOM: dict[str, Callable[[], Any]] = {
    "crop": lambda: transforms.RandomResizedCrop(8),
    "flip inside": lambda: transforms.Compose([transforms.Resize(8), transforms.RandomHorizontalFlip()]),
    "colours": lambda: transforms.ColorJitter(0.2),
    "augment": lambda: transforms.RandAugment(),
    "auto augment": lambda: transforms.AutoAugment(),
    "erase": lambda: v2.Compose([v2.RandomErasing()]),
    "apply": lambda: v2.RandomApply([v2.GaussianBlur(3)], 0.5),
    "blur": lambda: transforms.GaussianBlur(3),
    "elastic": lambda: v2.ElasticTransform(),
}


class Transformed(Dataset[Any]):
    def __init__(self, transform: Any) -> None:
        self.transform, self.targets = transform, [y for _, y in task(8)]

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return task(8, double=False)[index]


@pytest.mark.parametrize("case", RANDOM)
@pytest.mark.parametrize("inside", ["alone", "subset", "join"])
def test_random_transforms_are_warned_about(case: str, inside: str, caplog: pytest.LogCaptureFixture) -> None:
    dataset: Any = Transformed(RANDOM[case]())
    if inside != "alone":
        dataset = Subset(dataset, range(8)) if inside == "subset" else ConcatDataset([dataset, dataset])
    with caplog.at_level(logging.WARNING):
        warn_random_transforms(dataset)
    assert "transform is random" in caplog.text


def test_an_embedding_comes_with_the_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        embed(Transformed(RANDOM["crop"]()), small_probe(double=False), head="lbfgs", progress=False)
    assert "transform is random" in caplog.text


def test_plain_transforms_are_not_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    dataset = Transformed(
        transforms.Compose([transforms.Resize(8), transforms.CenterCrop(8), transforms.ToTensor()])
    )
    with caplog.at_level(logging.WARNING):
        embed(dataset, small_probe(double=False), head="lbfgs", progress=False)
    assert "random" not in caplog.text
