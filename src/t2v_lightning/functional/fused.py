"""The cosine distance in one pass over memory, for many embeddings, where the package numba is installed.

The eager formula writes every quotient to memory and reads it back; here quotients stay in registers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Pairs times entries from which compiling (about a second) costs less than it saves.
WORTHWHILE = 2e9
_COLUMNS = 16


def is_available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def fused_cosines(h0: Tensor, h1: Tensor, epsilon: float) -> Tensor:
    """cos(p, q) with p = h0 / (h0 + h1 + epsilon) and q = h1 / (h0 + h1 + epsilon).

    Args:
        h0: float32 or float64 [m, D].
        h1: [n, D] of the same dtype.
        epsilon: the constant.

    Returns:
        float64 [m, n].
    """
    out = np.empty((len(h0), len(h1)))
    kernel, left, right = _kernel(), np.ascontiguousarray(h0.numpy()), np.ascontiguousarray(h1.numpy())
    constant = left.dtype.type(epsilon)

    def work(start: int) -> None:
        part = slice(start, start + _COLUMNS)
        kernel(left, right[part], constant, out[:, part])

    # Threads of our own, as numba's pools are not safe to enter from several threads on every system.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(work, range(0, len(right), _COLUMNS)))
    return torch.from_numpy(out)


@lru_cache(maxsize=1)
def _kernel() -> Callable[..., None]:
    import numba

    # Sums may be reordered into vector registers; infinities and NaN keep their meaning.
    compiled: Callable[..., None] = numba.njit(nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"})(
        _cosines
    )
    return compiled


def _cosines(h0: NDArray[Any], h1: NDArray[Any], epsilon: Any, out: NDArray[np.float64]) -> None:
    """Runs of 1,024 entries are summed in the dtype of the input, the runs in float64."""
    size = h0.shape[1]
    one = epsilon / epsilon
    for j in range(h1.shape[0]):
        for i in range(h0.shape[0]):
            total_pp, total_qq, total_pq = 0.0, 0.0, 0.0
            for start in range(0, size, 1024):
                pp = qq = pq = epsilon - epsilon
                for k in range(start, min(start + 1024, size)):
                    inverse = one / (h0[i, k] + h1[j, k] + epsilon)
                    p = h0[i, k] * inverse
                    q = h1[j, k] * inverse
                    pp += p * p
                    qq += q * q
                    pq += p * q
                total_pp += pp
                total_qq += qq
                total_pq += pq
            out[i, j] = total_pq / np.sqrt(total_pp * total_qq)
