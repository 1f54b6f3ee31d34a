"""TransRate: coding rate of the features less that within classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.functional.transferability.arrays import labelled


def transrate(features: Any, labels: Any, *, distortion: float = 1e-4) -> float:
    r"""How many nats more the features take without knowing the classes than with.

    .. math:: R(Z) - \sum_c \frac{N_c}{N} R(Z_c), \qquad
        R(Z) = \frac12 \log \det \left( I + \frac{1}{N \epsilon} Z^\top Z \right)

    of centred features (Huang, Huang, Rong, Yang, Wei: *Frustratingly Easy Transferability Estimation*, ICML 2022).

    Args:
        features: [N, D].
        labels: [N].
        distortion: :math:`\epsilon`.

    Raises:
        ValueError: a shape is wrong, numbers are not finite, there are fewer than two classes, or the distortion is not
            above 0.

    >>> x = np.random.default_rng(0).normal(size=(60, 2)) + 9 * (np.arange(60)[:, None] // 30)
    >>> transrate(x, np.arange(60) // 30) > transrate(x, np.arange(60) % 2)
    True
    """
    if not distortion > 0:
        raise ValueError(f"distortion={distortion!r}; it must be a number above 0")
    data = labelled(features, labels)
    z = data.rows - data.rows.mean(0)
    within = [_rate(z[data.classes == c], distortion) for c in range(data.count)]
    return _rate(z, distortion) - float(data.shares @ within)


def _rate(z: NDArray[np.float64], distortion: float) -> float:
    s = np.linalg.svd(z, compute_uv=False)
    return 0.5 * float(np.log1p(s**2 / (len(z) * distortion)).sum())
