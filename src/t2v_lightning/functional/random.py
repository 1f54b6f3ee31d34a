"""Counter-based random numbers: a pure function of (seed, draw, sample index, position).

Nothing here keeps a state, so the numbers of a sample do not depend on its batch, on the number of processes or
workers, or on where a run was interrupted. The generator is the finaliser of SplitMix64 (Steele, Lea
and Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014), chained over the words of the key.
"""

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # SplitMix64's increment as a signed 64-bit number
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def _signed(number: int) -> int:
    """The signed 64-bit number with the last 64 bits of a whole number."""
    return (number + 2**63) % 2**64 - 2**63


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift; torch shifts signed numbers arithmetically."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIERS[0]
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIERS[1]
    return x ^ _shift_right(x, 31)


def _mix_number(x: int) -> int:
    """The same of one number, which Python is quicker at."""
    x = _signed((x ^ (x % 2**64 >> 30)) * _MULTIPLIERS[0])
    x = _signed((x ^ (x % 2**64 >> 27)) * _MULTIPLIERS[1])
    return x ^ (x % 2**64 >> 31)


def random_bits(seed: int, draw: int, index: Tensor, size: int) -> Tensor:
    """64 random bits for each sample and position.

    Args:
        seed: any integer; equal seeds give equal numbers.
        draw: number of the draw (pass) over a sample.
        index: int64 [N], the samples' positions in their dataset.
        size: how many numbers a sample needs.

    Returns:
        int64 [N, size], uniform over all 64-bit numbers.

    >>> a = random_bits(0, 0, torch.tensor([5, 7]), 3)
    >>> b = random_bits(0, 0, torch.tensor([7]), 3)
    >>> bool((a[1] == b[0]).all())
    True
    """
    key = _mix_number(_signed(seed + _GOLDEN))
    key = _mix_number(_signed((key ^ draw) + _GOLDEN))
    keys = _mix((key ^ index.to(torch.int64)) + _GOLDEN)
    positions = torch.arange(1, size + 1, device=index.device) * _GOLDEN
    return _mix(keys[:, None] + positions)


def random_uniform(seed: int, draw: int, index: Tensor, size: int) -> Tensor:
    """Uniform numbers in (0, 1): float64 [N, size]; arguments as for `random_bits`.

    >>> u = random_uniform(0, 0, torch.arange(10_000), 1)
    >>> abs(float(u.mean()) - 0.5) < 0.01
    True
    """
    return (_shift_right(random_bits(seed, draw, index, size), 11).double() + 0.5) * 2.0**-53


def random_signs(seed: int, draw: int, index: Tensor, size: int) -> Tensor:
    """Independent signs -1 or +1: float64 [N, size]; arguments as for `random_bits`."""
    return torch.where(random_bits(seed, draw, index, size) < 0, -1.0, 1.0).double()


def random_normal(seed: int, draw: int, index: Tensor, size: int) -> Tensor:
    """Standard normal numbers by the Box-Muller transform: float64 [N, size]; arguments as for `random_bits`."""
    half = (size + 1) // 2
    u = random_uniform(seed, draw, index, 2 * half)
    radius = torch.sqrt(-2.0 * torch.log(u[:, :half]))
    angle = 2.0 * math.pi * u[:, half:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :size]


def hadamard(size: int, device: torch.device | None = None) -> Tensor:
    """Hadamard matrix of Sylvester's construction: float64 [size, size], `size` a power of two.

    >>> hadamard(2)
    tensor([[ 1.,  1.],
            [ 1., -1.]], dtype=torch.float64)
    """
    if size < 1 or size & (size - 1):
        raise ValueError(f"the size of a Hadamard matrix of Sylvester's form is a power of two; got {size}")
    matrix = torch.ones(1, 1, dtype=torch.float64, device=device)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix
