"""Sums of products that BLAS computes in the thread that asks for them.

Every thread of `tiles` works on tiles of its own. The threads of a BLAS library would wait for each other inside each
product, for as long as the slowest of them takes to get a processor: on a busy machine, a product of 9 ms took 470.
OpenBLAS, which NumPy's wheels bring, uses one thread for products below certain sizes; these stay below them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LONGEST = 10_000
"""Entries of a dot product, from `kernel/x86_64/ddot.c` of OpenBLAS."""
_BLOCK, _DEPTH = 32, 256
"""Rows of each side and entries of a matrix product: 2^18 multiplications, from `interface/gemm.c`."""


def row_products(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """The dot products of the rows of `x` [..., D] with those of `y` [..., D], float64 [...].

    >>> row_products(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 1.0], [0.0, 2.0]]))
    array([3., 8.])
    """
    size = x.shape[-1]
    out = np.zeros(x.shape[:-1])
    for start in range(0, size, _LONGEST):
        part = slice(start, start + _LONGEST)
        out += np.vecdot(x[..., part], y[..., part])
    return out


def matrix_product(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """`x @ y.T` of `x` [m, D] and `y` [n, D].

    >>> matrix_product(np.array([[1.0, 2.0]]), np.array([[1.0, 1.0], [0.0, 2.0]]))
    array([[3., 4.]])
    """
    out = np.zeros((len(x), len(y)))
    for start in range(0, x.shape[1], _DEPTH):
        entries = slice(start, start + _DEPTH)
        for i in range(0, len(x), _BLOCK):
            for j in range(0, len(y), _BLOCK):
                left, right = x[i : i + _BLOCK, entries], y[j : j + _BLOCK, entries]
                out[i : i + _BLOCK, j : j + _BLOCK] += left @ right.T
    return out
