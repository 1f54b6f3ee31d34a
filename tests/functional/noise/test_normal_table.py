"""Normal numbers from a table: independent, and functions of seed, stream and index only."""

from collections.abc import Iterable

import torch
from torch import Tensor

from t2v_lightning.functional.noise.normal_table import NormalTable


def statistics(values: Iterable[Tensor]) -> tuple[float, float]:
    stacked = torch.stack(list(values)).double()
    return float(stacked.mean()), float(stacked.std())


def test_table_numbers_are_normal_and_independent() -> None:
    table = NormalTable(3)
    numbers = table.read(2, torch.arange(8), 40_000)
    mean, std = statistics([numbers])
    assert abs(mean) < 5 / 320_000**0.5
    assert abs(std - 1) < 5 / 640_000**0.5
    assert abs(float((numbers**3).mean())) < 5 * (15 / 320_000) ** 0.5
    assert abs(float((numbers**4).mean()) - 3) < 5 * (96 / 320_000) ** 0.5
    others = (table.read(3, torch.arange(8), 40_000), NormalTable(4).read(2, torch.arange(8), 40_000))
    for other in (*others, numbers.roll(1, 0), numbers.roll(1, 1)):
        assert abs(float((numbers * other).mean())) < 5 / 320_000**0.5


def test_table_numbers_depend_on_seed_stream_and_index_alone() -> None:
    table = NormalTable(0)
    together = table.read(1, torch.tensor([4, 9, 4]), 20_000)
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1:2], NormalTable(0).read(1, torch.tensor([9]), 20_000))
    assert table.read(1, torch.tensor([], dtype=torch.int64), 7).shape == (0, 7)
