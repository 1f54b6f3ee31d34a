"""The options of the head and of each method, checked where they enter."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from t2v_lightning._spelling import did_you_mean
from t2v_lightning.functional.engine.usage import Include, check_include
from t2v_lightning.functional.layers.sketch import Squares, check_squares
from t2v_lightning.functional.likelihood import Sampling, check_sampling

HeadMethod = Literal["adam", "lbfgs", "keep", "calibrated", "bias"]
NoiseInit = Literal["fisher", "reference"]


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, as which True and False do not count.

    >>> is_whole(3), is_whole("3"), is_whole(True)
    (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number.

    >>> is_number(0.5), is_number("0.5"), is_number(math.inf)
    (True, False, False)
    """
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


@dataclass(frozen=True)
class HeadOptions:
    """How the head is fitted.

    Attributes:
        method: "adam", "lbfgs" (the optimum of the convex problem to ten digits, found by Newton's method),
            "calibrated" (that optimum, but the distribution of an image is the one that a head gives which was fitted
            without it; see `functional.head.refits`), or "keep" the head that the probe came with. The head of a
            language model, under `likelihood="next_token"`, is kept, or a copy of it is fitted further by "adam", or
            gets the "bias" with which it predicts the task's own token frequencies; see `phases.token_head`. None for
            what suits the likelihood, once that is known: "keep" for a language model's, else "adam".
        lr: learning rate of Adam.
        weight_decay: L2 penalty, `weight_decay / 2 * (|W|^2 + |b|^2)`.
        epochs: of Adam.
        num_samples: draws with replacement that make an epoch of Adam, however many images there are.
        batch_size: of Adam.
    """

    method: HeadMethod | None = "adam"
    lr: float = 4e-4
    weight_decay: float = 1e-4
    epochs: int = 10
    num_samples: int = 10_000
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in get_args(HeadMethod):
            allowed = get_args(HeadMethod)
            near = did_you_mean(self.method, allowed)
            raise ValueError(f"unknown head {self.method!r}; allowed are {', '.join(allowed)}{near}")
        for name in ("epochs", "num_samples", "batch_size"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                raise ValueError(f"head {name}={value!r}; it must be a whole number above 0")
        if not (is_number(self.lr) and self.lr > 0):
            raise ValueError(f"head lr={self.lr!r}; it must be a number above 0")
        if not (is_number(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"head weight_decay={self.weight_decay!r}; it must be a number of 0 or more")


@dataclass(frozen=True)
class MonteCarloOptions:
    """How the gradients of each image are squared.

    Attributes:
        sampling: "sign", "categorical", "exact" or "empirical"; see `functional.likelihood.cotangents`.
        passes: random vectors per image.
        target_stderr: stop once the relative standard error is that small; None sees all images.
        include: "weights", "weights+norm" or "all".
        token_table: whether the vector has the rows of a table of tokens, by what the table does at the input; without
            them the vector depends less on which words occur. None for all tables but one that shares its weight with
            the head that a language model came with.
        squares: "auto" (unbiased estimates where they are faster, for "sign" and "categorical"), "exact", or a number
            of columns; see `functional.layers.sketch`.

    Raises:
        ValueError, TypeError: an option is out of range.

    >>> MonteCarloOptions(target_stderr=2)
    Traceback (most recent call last):
    ...
    ValueError: target_stderr=2; it is a share of the norm, between 0 and 1
    """

    learns: ClassVar[bool] = False
    """Whether the phase takes gradient steps, in the precision of the Trainer."""

    sampling: Sampling = "sign"
    passes: int = 1
    target_stderr: float | None = None
    include: Include = "weights"
    token_table: bool | None = None
    squares: Squares = "auto"

    def __post_init__(self) -> None:
        if not is_whole(self.passes):
            raise TypeError(f"passes must be a whole number, got {self.passes!r}")
        check_sampling(self.sampling, self.passes)
        check_include(self.include)
        check_squares(self.squares)
        if self.token_table is not None and not isinstance(self.token_table, bool):
            raise TypeError(f"token_table must be True, False or None, got {self.token_table!r}")
        if self.target_stderr is not None and not (
            is_number(self.target_stderr) and 0 < self.target_stderr < 1
        ):
            raise ValueError(
                f"target_stderr={self.target_stderr!r}; it is a share of the norm, between 0 and 1"
            )


@dataclass(frozen=True)
class VariationalOptions:
    """How the noise is learned.

    Attributes:
        init: "fisher": the noise starts at 1/v = F / (2 beta) + 1 / lambda^2 of the first batch, and natural-gradient
            steps keep it at the geometric mean over batches. "reference": it starts at a share of the variance of the
            weights and Adam learns it, as in the reference implementation.
        epochs: of `draws` draws each.
        beta: weight of the KL divergence against the cross-entropy.
        noise_lr: learning rate (Adam) of log-variances and log lambda^2, for "reference".
        head_lr: learning rate (Adam) of the head, and of what `update_norm` adds.
        num_samples: draws with replacement that make an epoch, however many images there are. None: 2,048, or 10,000
            with "reference", whose small steps need them.
        update_norm: also learn the affine parameters of normalisation layers, in copies. With "fisher" this takes a
            second backward pass.

    Raises:
        ValueError: an option is out of range.

    >>> VariationalOptions(epochs=0)
    Traceback (most recent call last):
    ...
    ValueError: epochs=0; it must be a whole number above 0
    """

    learns: ClassVar[bool] = True

    init: NoiseInit = "fisher"
    epochs: int = 2
    beta: float = 1e-7
    noise_lr: float = 1e-2
    head_lr: float = 5e-4
    num_samples: int | None = None
    update_norm: bool = False

    def __post_init__(self) -> None:
        if self.init not in get_args(NoiseInit):
            raise ValueError(f"init={self.init!r}; it must be one of {', '.join(get_args(NoiseInit))}")
        for name, value in (("epochs", self.epochs), ("num_samples", self.draws)):
            if not is_whole(value) or value < 1:
                raise ValueError(f"{name}={value!r}; it must be a whole number above 0")
        for name in ("beta", "noise_lr", "head_lr"):
            value = getattr(self, name)
            if not (is_number(value) and value > 0):
                raise ValueError(f"{name}={value!r}; it must be a number above 0")
        if self.init == "fisher" and self.noise_lr != VariationalOptions.noise_lr:
            raise ValueError(
                f"noise_lr={self.noise_lr!r} would have no effect with init='fisher', whose steps have no learning "
                f"rate; leave it at {VariationalOptions.noise_lr!r}, or choose init='reference'"
            )
        if not isinstance(self.update_norm, bool):
            raise ValueError(f"update_norm={self.update_norm!r}; it must be True or False")

    @property
    def draws(self) -> int:
        """Draws of an epoch: `num_samples`, or what `init` takes by default."""
        if self.num_samples is not None:
            return self.num_samples
        return 2_048 if self.init == "fisher" else 10_000
