"""The cosine distance in one pass over memory, for many embeddings, where the package numba is installed.

The formula in NumPy writes every quotient to memory and reads it back; here they stay in registers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Pairs times entries from which compiling (half a second) costs less than it saves.
WORTHWHILE = 1e9


def is_available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def fused_cosines(h0: NDArray[Any], h1: NDArray[Any], epsilon: float) -> NDArray[np.float64]:
    """cos(p, q) with p = h0 / (h0 + h1 + epsilon) and q = h1 / (h0 + h1 + epsilon).

    Args:
        h0: float32 or float64 [m, D].
        h1: [n, D] of the same dtype.
        epsilon: the constant.

    Returns:
        float64 [m, n].
    """
    out = np.empty((len(h0), len(h1)))
    _kernel()(np.ascontiguousarray(h0), np.ascontiguousarray(h1), h0.dtype.type(epsilon), out)
    return out


@lru_cache(maxsize=1)
def _kernel() -> Callable[..., None]:
    import numba

    # What lets the loop use vector registers: sums in any order, and no check for division by zero.
    order = {"reassoc", "contract", "arcp", "nsz"}
    compiled: Callable[..., None] = numba.njit(nogil=True, fastmath=order, error_model="numpy")(_cosines)
    return compiled


def _cosines(h0: NDArray[Any], h1: NDArray[Any], epsilon: Any, out: NDArray[np.float64]) -> None:
    """Runs of 1,024 entries are summed in the dtype of the input, the runs in float64."""
    one, zero = epsilon / epsilon, epsilon - epsilon
    for j in range(h1.shape[0]):
        for i in range(h0.shape[0]):
            total_pp, total_qq, total_pq = 0.0, 0.0, 0.0
            for start in range(0, h0.shape[1], 1024):
                x, y = h0[i, start : start + 1024], h1[j, start : start + 1024]
                pp, qq, pq = zero, zero, zero
                for k in range(x.size):
                    inverse = one / (x[k] + y[k] + epsilon)
                    p = x[k] * inverse
                    q = y[k] * inverse
                    pp += p * p
                    qq += q * q
                    pq += p * q
                total_pp += pp
                total_qq += qq
                total_pq += pq
            out[i, j] = total_pq / np.sqrt(total_pp * total_qq)
