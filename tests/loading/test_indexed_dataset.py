"""Items of the indexed dataset: image, target and position."""

from typing import Any

import pytest
import torch
from numbered_images import images
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from t2v_lightning.loading.dataset import IndexedDataset


def test_items_are_the_chosen_images_with_target_and_position() -> None:
    dataset = IndexedDataset(images(10), torch.tensor([7, 2, 9]))
    assert len(dataset) == 3
    items = [dataset[position] for position in range(3)]
    assert [(float(image.max()), target, at) for image, target, at in items] == [
        (7, 1, 0),
        (2, 2, 1),
        (9, 0, 2),
    ]


def test_positions_beyond_the_end_show_some_image_under_their_own_number() -> None:
    image, _, position = IndexedDataset(images(10), torch.tensor([7, 2, 9]))[4]
    assert position == 4
    assert float(image.max()) in (7, 2, 9)


def test_pil_images_get_the_transform_and_tensors_do_not() -> None:
    def transform(image: Image.Image) -> Any:
        return pil_to_tensor(image).float() + 0.5

    items = [(Image.new("L", (2, 2), 7), 0), (torch.full((1, 2, 2), 9.0), 1)]
    dataset = IndexedDataset(items, torch.arange(2), transform)
    assert dataset[0][0].tolist() == [[[7.5, 7.5], [7.5, 7.5]]]
    assert dataset[1][0].tolist() == [[[9, 9], [9, 9]]]


def test_pil_images_without_a_transform() -> None:
    with pytest.raises(TypeError, match="item 1 is a Image; pass a transform"):
        IndexedDataset([(Image.new("L", (2, 2)), 0)] * 2, torch.tensor([1]))[0]


def test_images_that_are_no_float_tensors_are_named() -> None:
    """Numbers 0 to 255 would pass for an image that is ready for the network."""
    items = [(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 2, 2, dtype=torch.uint8), 1)]
    with pytest.raises(
        ValueError, match=r"image 1 of the dataset is a torch\.uint8 tensor; give float tensors"
    ):
        IndexedDataset(items, torch.arange(2))[1]
    pictures = [(Image.new("L", (2, 2)), 0)]
    with pytest.raises(ValueError, match="image 0 of the dataset is a Image; give float tensors"):
        IndexedDataset(pictures, torch.arange(1), lambda image: image)[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_images_that_are_not_finite_are_named(bad: float) -> None:
    items = images(10)
    items[6][0][1, 2, 0] = bad
    dataset = IndexedDataset(items, torch.tensor([2, 6]))
    dataset[0]
    with pytest.raises(ValueError, match="image 6 of the dataset holds NaN or infinite values"):
        dataset[1]
    broken = IndexedDataset(
        [(Image.new("L", (2, 2)), 0)], torch.tensor([0]), lambda _: torch.full((1, 2, 2), bad)
    )
    with pytest.raises(ValueError, match="image 0 of the dataset holds NaN"):
        broken[0]
