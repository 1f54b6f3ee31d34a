"""Counter-based random numbers: the right generator, good enough numbers, and no state."""

import math

import pytest
import torch
from scipy import stats

from t2v_lightning.functional.random import (
    hadamard,
    random_bits,
    random_normal,
    random_signs,
    random_uniform,
)

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    """SplitMix64's finaliser in Python's own whole numbers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def chained(seed: int, draw: int, index: int, position: int) -> int:
    key = 0
    for word in (seed, draw, index):
        key = mix(((key ^ (word & MASK)) + GOLDEN) & MASK)
    return mix((key + (position + 1) * GOLDEN) & MASK)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("draw", [0, 1, 12345])
def test_bits_are_splitmix_chained_over_the_key(seed: int, draw: int) -> None:
    index = torch.tensor([0, 1, 7, 2**40])
    bits = random_bits(seed, draw, index, 5)
    expected = [[chained(seed, draw, i, p) for p in range(5)] for i in index.tolist()]
    assert [[b & MASK for b in row] for row in bits.tolist()] == expected


@pytest.mark.parametrize("numbers", [random_bits, random_uniform, random_signs, random_normal])
def test_a_samples_numbers_do_not_depend_on_its_batch(numbers) -> None:  # type: ignore[no-untyped-def]
    index = torch.randperm(1000)[:50]
    together = numbers(3, 2, index, 6)
    alone = torch.cat([numbers(3, 2, i[None], 6) for i in index])
    assert torch.equal(together, alone)
    assert torch.equal(numbers(3, 2, index.to(torch.int32), 6), together)


@pytest.mark.parametrize("numbers", [random_bits, random_uniform, random_signs])
def test_asking_for_more_numbers_leaves_the_first_as_they_are(numbers) -> None:  # type: ignore[no-untyped-def]
    index = torch.arange(20)
    assert torch.equal(numbers(0, 0, index, 9)[:, :4], numbers(0, 0, index, 4))


def test_seed_draw_and_index_are_not_interchangeable() -> None:
    seen = {
        int(random_bits(seed, draw, torch.tensor([index]), 1))
        for seed in range(12)
        for draw in range(12)
        for index in range(12)
    }
    assert len(seen) == 12**3


def test_every_bit_is_fair() -> None:
    bits = random_bits(5, 0, torch.arange(20_000), 1)[:, 0]
    for position in range(64):
        ones = int(((bits >> position) & 1).sum())
        assert abs(ones - 10_000) < 5 * math.sqrt(20_000) / 2, f"bit {position}: {ones} ones"


def test_uniform_numbers_fill_the_open_interval_evenly() -> None:
    u = random_uniform(1, 4, torch.arange(5000), 4)
    assert u.dtype == torch.float64
    assert u.shape == (5000, 4)
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3


def test_normal_numbers_are_normal() -> None:
    z = random_normal(1, 0, torch.arange(5000), 3)
    assert z.shape == (5000, 3)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(z.T) - torch.eye(3)
    assert float(correlation.abs().max()) < 5 / math.sqrt(5000)


def test_signs_are_fair_and_independent() -> None:
    """Across positions, draws, seeds and neighbouring samples."""
    n, bound = 20_000, 5 / math.sqrt(20_000)
    index = torch.arange(n)
    signs = random_signs(0, 0, index, 3)
    assert signs.abs().eq(1).all()
    assert float(signs.mean(0).abs().max()) < bound
    first = signs[:, 0]
    for other in (
        signs[:, 1],
        signs[:, 2],
        random_signs(0, 1, index, 1)[:, 0],
        random_signs(1, 0, index, 1)[:, 0],
        first.roll(1),
    ):
        assert abs(float((first * other).mean())) < bound


@pytest.mark.parametrize("size", [1, 2, 4, 32])
def test_hadamard_rows_are_orthogonal_signs(size: int) -> None:
    matrix = hadamard(size)
    assert matrix.abs().eq(1).all()
    assert torch.equal(matrix @ matrix.T, size * torch.eye(size, dtype=torch.float64))


@pytest.mark.parametrize("size", [0, -4, 3, 12])
def test_hadamard_sizes_are_powers_of_two(size: int) -> None:
    with pytest.raises(ValueError, match=f"is a power of two; got {size}"):
        hadamard(size)
