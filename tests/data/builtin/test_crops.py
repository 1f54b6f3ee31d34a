import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2v_lightning.data.builtin.crops import Box, Grid, cut, spread_crops, walk
from t2v_lightning.data.errors import DataError

coordinates = st.integers(0, 60)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, top = draw(coordinates), draw(coordinates)
    return Box(left, top, left + draw(st.integers(1, 30)), top + draw(st.integers(1, 30)))


def painted(box: Box) -> np.ndarray:
    mask = np.zeros((100, 100), dtype=bool)
    mask[box.top : box.bottom, box.left : box.right] = True
    return mask


@given(boxes(), st.integers(5, 40))
def test_a_box_has_a_split_only_when_all_its_pixels_are_of_one_tile(box: Box, tile: int) -> None:
    grid = Grid(Box(0, 0, 100, 100), tile)
    tiles = {(x // tile, y // tile) for x in range(box.left, box.right) for y in range(box.top, box.bottom)}
    split = grid.split_of(box)
    if len(tiles) > 1:
        assert split is None
    else:
        column, row = tiles.pop()
        assert split == ("test" if (column + row) % 3 == 2 else "train")


def test_walk_follows_the_plastic_number() -> None:
    plastic = max(np.roots([1, 0, -1, -1]).real)
    steps = np.arange(1, 101)
    expected_left = 10 + np.floor((0.5 + steps / plastic) % 1 * 81)
    expected_top = 20 + np.floor((0.5 + steps / plastic**2) % 1 * 41)
    positions = walk(Box(10, 20, 110, 80), 20)
    found = [next(positions) for _ in range(100)]
    assert [box.left for box in found] == expected_left.tolist()
    assert [box.top for box in found] == expected_top.tolist()
    assert all((box.right - box.left, box.bottom - box.top) == (20, 20) for box in found)


def test_crops_of_the_two_splits_share_no_pixel_and_cover_most_of_the_image() -> None:
    grid = Grid(Box(0, 0, 100, 100), 25)
    masks = {
        split: np.any([painted(box) for box in spread_crops(grid, split, 15, 150)], axis=0)
        for split in ("train", "test")
    }
    assert not (masks["train"] & masks["test"]).any()
    assert (masks["train"] | masks["test"]).mean() > 0.9
    assert masks["test"].mean() == pytest.approx(1 / 3, abs=0.06)


def test_crops_differ_and_satisfy_the_condition() -> None:
    grid = Grid(Box(0, 0, 100, 100), 25)
    crops = spread_crops(grid, "train", 15, 60, accept=lambda box: box.left > 40)
    assert len(set(crops)) == 60
    assert min(crop.left for crop in crops) > 40


def test_too_few_crops_is_an_error() -> None:
    grid = Grid(Box(0, 0, 100, 100), 25)
    with pytest.raises(DataError, match="got count=4, but the region has 0 such train crops of 15 pixels"):
        spread_crops(grid, "train", 15, 4, accept=lambda box: False)


def test_cut_takes_rows_from_top_and_columns_from_left() -> None:
    pixels = np.arange(12).reshape(3, 4)
    assert cut(pixels, Box(1, 0, 3, 2)).tolist() == [[1, 2], [5, 6]]
