"""Images of a task with their labels: which, how they look, and what they are called."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_probe import small_probe, striped
from torch import Tensor

from t2v_lightning import ProbeNetwork, Task2Vec
from t2v_lightning.callbacks.examples import (
    Example,
    as_pictures,
    choose_examples,
    mosaic,
    plot_examples,
    read_examples,
)
from t2v_lightning.data import get_datamodule
from t2v_lightning.loading.loader import LoaderOptions
from t2v_lightning.probes.transforms import ImageTransform


@pytest.mark.parametrize("sizes", [[5], [3, 40], [1, 1, 90], [9] * 16, [2] * 500], ids=str)
def test_every_class_is_shown_as_far_as_there_is_room(sizes: list[int]) -> None:
    strata = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    strata = strata[torch.randperm(len(strata), generator=torch.Generator().manual_seed(0))]
    chosen = choose_examples(strata, 16)
    assert len(set(chosen)) == len(chosen) <= 16
    shown = strata[chosen]
    assert shown.tolist() == sorted(shown.tolist())
    if len(sizes) <= 16:
        room = 16 // len(sizes)
        assert shown.bincount(minlength=len(sizes)).tolist() == [min(size, room) for size in sizes]
    else:
        assert len(shown.unique()) == 16
    assert chosen == choose_examples(strata, 16)


def coloured() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 8, 8, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("normalised", [False, True])
def test_images_look_as_they_were_before_they_were_normalised(normalised: bool) -> None:
    transform, images = ImageTransform.default((3, 8, 8)), coloured()
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (transform.mean, transform.std))
    given = [(image - mean) / std for image in images] if normalised else images
    for picture, image in zip(as_pictures(given, transform), images, strict=True):
        assert picture.mode == "RGB"
        np.testing.assert_allclose(np.asarray(picture), 255 * image.permute(1, 2, 0).numpy(), atol=0.51)


def test_images_of_an_unknown_scale_are_stretched() -> None:
    grey = [torch.full((1, 4, 4), value, dtype=torch.float64) for value in (-30.0, 10.0, 50.0)]
    assert [picture.getpixel((0, 0)) for picture in as_pictures(grey, lambda image: image)] == [0, 128, 255]
    five_bands = as_pictures([torch.rand(5, 4, 4)])
    assert [(picture.mode, picture.size) for picture in five_bands] == [("L", (4, 4))]


def examples_of(source: Any, probe: ProbeNetwork, **options: Any) -> list[Example]:
    plan = Task2Vec(probe, **options).prepare(source, LoaderOptions())
    return read_examples(plan.dataset, plan.selection, plan.meta.get("class_names"))


def test_labels_are_the_names_of_the_classes() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                                  torch.nn.Linear(4, 3))  # fmt: skip
    datamodule = get_datamodule("textures")
    datamodule.setup("fit")
    examples = examples_of(datamodule, ProbeNetwork.from_module(network, (3, 32, 32)), max_samples=30)
    assert [example.label for example in examples] == [n for n in datamodule.class_names for _ in range(5)]
    assert {example.picture.size for example in examples} == {(32, 32)}


class Named:
    """A map-style dataset with names of its classes, some of which have no images."""

    classes = ("ant", "bee", "cow", "dog")

    def __init__(self, targets: list[Any]) -> None:
        self.items = [
            (image, target) for (image, _), target in zip(striped(len(targets)), targets, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> Any:
        return self.items[item]


@pytest.mark.parametrize(
    ("likelihood", "targets", "expected"),
    [
        ("softmax", [3, 1, 3, 1], ["bee", "bee", "dog", "dog"]),
        ("softmax", [30, 1, 30, 1], ["bee", "bee", "30", "30"]),
        ("bernoulli", [torch.tensor(row) for row in ([1.0, 0, 0, 1], [0, 0, 0, 0], [0, 1.0, 0, 0])],
         ["ant, dog", "none", "bee"]),
        ("gaussian", [torch.tensor(row) for row in ([0.25, -1.0], [12.3456, 0.0], [0.0, 1.0])],
         ["0.25, -1", "12.3, 0", "0, 1"]),
    ],
)  # fmt: skip
def test_labels_of_every_likelihood(likelihood: Any, targets: list[Any], expected: list[str]) -> None:
    examples = examples_of(Named(targets), small_probe(), likelihood=likelihood)
    assert [example.label for example in examples] == expected


@pytest.mark.parametrize("count", [1, 5, 16])
def test_a_grid_has_all_images_and_labels_as_text(count: int) -> None:
    picture = Image.new("RGB", (8, 8), "red")
    figure = plot_examples([Example(picture, f"$a_{i}$ {'long ' * 20}") for i in range(count)])
    figure.draw_without_rendering()
    assert len(figure.axes) == count
    for ax in figure.axes:
        assert ax.get_title().startswith(r"\$a_")
        assert len(ax.get_title().splitlines()) == 2
        box = ax.title.get_window_extent()
        assert box.x0 >= -5
        assert box.y1 <= figure.bbox.y1 + 1


@pytest.mark.parametrize(("count", "corner"), [(1, "red"), (2, "red"), (4, "blue")])
def test_a_mosaic_is_square(count: int, corner: str) -> None:
    colours = ["red", "lime", "white", "blue"]
    examples = [Example(Image.new("RGB", (20, 10), colour), "") for colour in colours]
    picture = mosaic(examples[:count], 32)
    assert (picture.mode, picture.size) == ("RGB", (32, 32))
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    assert picture.getpixel((31, 31)) == Image.new("RGB", (1, 1), corner).getpixel((0, 0))
