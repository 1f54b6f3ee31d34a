"""How the variational phase learns, and what it came to."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class VariationalOptions:
    """How the noise is learned.

    Attributes:
        epochs: of `num_samples` draws each.
        beta: weight of the KL divergence against the cross-entropy.
        noise_lr: learning rate (Adam) of log-variances and log lambda^2.
        head_lr: learning rate (Adam) of the head, and of what `update_norm` adds.
        num_samples: draws with replacement that make an epoch, however many images there are.
        update_norm: learn the affine parameters of normalisation layers along, in copies.

    Raises:
        ValueError: an option is out of range.

    >>> VariationalOptions(epochs=0)
    Traceback (most recent call last):
    ...
    ValueError: epochs=0; it must be a whole number above 0
    """

    epochs: int = 2
    beta: float = 1e-7
    noise_lr: float = 1e-2
    head_lr: float = 5e-4
    num_samples: int = 10_000
    update_norm: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "num_samples"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}; it must be a whole number above 0")
        for name in ("beta", "noise_lr", "head_lr"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"{name}={value!r}; it must be a number above 0")
        if not isinstance(self.update_norm, bool):
            raise ValueError(f"update_norm={self.update_norm!r}; it must be True or False")


@dataclass(frozen=True)
class VariationalFit:
    """Means over the draws of the last epoch, under noise, and the KL divergence at its end.

    `loss` is cross_entropy + beta * kl, where cross_entropy stands for the negative log-likelihood.
    """

    loss: float
    cross_entropy: float
    kl: float
    accuracy: float
