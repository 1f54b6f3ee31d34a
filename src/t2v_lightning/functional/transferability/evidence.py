"""LogME: the evidence of a Bayesian linear model."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.functional.transferability.arrays import labelled

_MOST_STEPS = 100


def logme(features: Any, labels: Any) -> float:
    r"""Logarithm of the maximum evidence, for each sample and class.

    For each class the labels y (1 for the class, 0 for others) are modelled as Gaussian with precision :math:`\beta`
    around :math:`F w`, and w as Gaussian with precision :math:`\alpha`; both are chosen so that

    .. math::
        \mathcal{L} = \frac{D}{2} \log \alpha + \frac{N}{2} \log \frac{\beta}{2 \pi} - \frac{\beta}{2} \|F m - y\|^2
            - \frac{\alpha}{2} \|m\|^2 - \frac{1}{2} \log \det (\alpha I + \beta F^\top F)

    is largest, with m the mean of w given y. The score is :math:`\mathcal{L} / N`, averaged over classes (You, Liu,
    Wang, Long: *LogME: Practical Assessment of Pre-trained Models for Transfer Learning*, ICML 2021). The determinant
    is that of all D dimensions, also where D > N.

    Args:
        features: [N, D].
        labels: [N].

    Raises:
        ValueError: a shape is wrong, numbers are not finite, or there are fewer than two classes.

    >>> x = np.array([[1.0, 0.1], [0.9, -0.2], [-1.1, 0.0], [-0.8, 0.1]])
    >>> logme(x, [0, 0, 1, 1]) > logme(x, [0, 1, 0, 1])
    True
    """
    data = labelled(features, labels)
    u, s, _ = np.linalg.svd(data.rows, full_matrices=False)
    used = s > s[0] * 1e-10
    u, s = u[:, used], s[used]
    evidences = [_evidence(u.T @ y, float(y @ y), s**2, len(y)) for y in data.onehot.T]
    return float(np.mean(evidences))


def _evidence(z: NDArray[np.float64], square: float, sigma: NDArray[np.float64], count: int) -> float:
    """The largest evidence over the number of samples.

    Args:
        z: U^T y.
        square: |y|^2.
        sigma: squared singular values of the features.
        count: N.
    """
    outside = max(square - float(z @ z), 0.0)
    if not len(sigma):
        return float(0.5 * np.log(count / outside / (2 * np.pi)) - 0.5)
    alpha = beta = 1.0
    for _ in range(_MOST_STEPS):
        t = alpha / beta
        residual = float((z**2 / (1 + sigma / t) ** 2).sum()) + outside
        norm = float((sigma * z**2 / (t + sigma) ** 2).sum())
        gamma = float((sigma / (sigma + t)).sum())
        alpha = gamma / max(norm, 1e-300)
        beta = (count - gamma) / max(residual, 1e-12)
        if abs(alpha / beta - t) <= 1e-6 * t:
            break
    t = alpha / beta
    residual = float((z**2 / (1 + sigma / t) ** 2).sum()) + outside
    norm = float((sigma * z**2 / (t + sigma) ** 2).sum())
    # alpha^D cancels in the dimensions without features
    determinant = float(np.log1p(beta * sigma / alpha).sum())
    value = count * np.log(beta / (2 * np.pi)) - beta * residual - alpha * norm - determinant
    return float(value / (2 * count))
