r"""Output factors of the Fisher information for the likelihoods a task can have.

For one sample with network output f the Fisher information of the output distribution is a matrix
H = S S^T (C x C). `Likelihood.factor_times` multiplies S with a vector without forming it:

=========  ======================================  =======================================================
name       H                                       S
=========  ======================================  =======================================================
softmax    diag(p) - p p^T                         C - 1 columns of its Cholesky-like factor: classes sorted
                                                   by falling p, t_k = sum of p_j for j >= k,
                                                   L_kk = sqrt(p_k t_{k+1} / t_k), L_jk = -L_kk p_j / t_{k+1}
bernoulli  diag(p (1 - p)), one label at a time    sqrt(p_k (1 - p_k)) e_k
gaussian   identity (unit variance)                e_k
=========  ======================================  =======================================================

A vector v with E[v v^T] = H makes (d/d theta <v, f>)^2 an unbiased estimate of the Fisher of theta.
`cotangents` gives such vectors in the four ways of the table in its docstring.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.random import hadamard, random_normal, random_signs, random_uniform

LikelihoodName = Literal["softmax", "bernoulli", "gaussian"]
Sampling = Literal["exact", "sign", "categorical", "empirical"]


class Likelihood(ABC):
    """How network outputs f [N, C] become a distribution over targets."""

    name: ClassVar[LikelihoodName]

    @abstractmethod
    def columns(self, outputs: Tensor) -> int:
        """Number R of columns of the factor S."""

    @abstractmethod
    def factor_times(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        """S_n c_n for every sample; outputs [N, C], coefficients [N, R], result [N, C]."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Gradient of the log-likelihood of `targets` in the outputs, [N, C]."""

    @abstractmethod
    def sample_score(self, outputs: Tensor, seed: int, draw: int, index: Tensor) -> Tensor:
        """`score` at targets drawn from the model's own distribution, [N, C]."""

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise ValueError unless targets fit the outputs [N, C]."""
        if targets.shape != outputs.shape:
            raise ValueError(
                f"{self.name} targets must have the shape of the outputs, {tuple(outputs.shape)}; got "
                f"{tuple(targets.shape)}"
            )

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of each sample up to a constant, [N]."""

    @abstractmethod
    def accuracy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """A figure per sample to show a person, [N]: right or wrong, share of right labels, or 1 - squared error."""


class Softmax(Likelihood):
    """One class out of C; targets int64 [N]."""

    name = "softmax"

    def columns(self, outputs: Tensor) -> int:
        return outputs.shape[1] - 1

    def factor_times(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        p, order = outputs.softmax(1).sort(dim=1, descending=True, stable=True)
        tail = p.flip(1).cumsum(1).flip(1)  # t_k = p_k + p_{k+1} + ...
        following = tail[:, 1:].clamp_min(torch.finfo(p.dtype).tiny)
        scaled = (
            coefficients * (p[:, :-1] * following / tail[:, :-1].clamp_min(torch.finfo(p.dtype).tiny)).sqrt()
        )
        # row j of L c: its own column, minus p_j times what all earlier columns put on the classes behind them
        earlier = F.pad((scaled / following).cumsum(1), (1, 0))
        product = F.pad(scaled, (0, 1)) - p * earlier
        return torch.zeros_like(product).scatter(1, order, product)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        if targets.shape != outputs.shape[:1] or targets.is_floating_point():
            raise ValueError(
                f"softmax targets must be one integer label a sample, shape ({len(outputs)},); got {targets.dtype} "
                f"of shape {tuple(targets.shape)}"
            )
        if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < outputs.shape[1]):
            raise ValueError(
                f"targets range over {int(targets.min())}..{int(targets.max())}, but the network has "
                f"{outputs.shape[1]} outputs, so that labels are 0..{outputs.shape[1] - 1}"
            )

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.one_hot(targets, outputs.shape[1]).to(outputs.dtype) - outputs.softmax(1)

    def sample_score(self, outputs: Tensor, seed: int, draw: int, index: Tensor) -> Tensor:
        cumulative = outputs.double().softmax(1).cumsum(1)
        labels = (cumulative < random_uniform(seed, draw, index, 1) * cumulative[:, -1:]).sum(1)
        return self.score(outputs, labels)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    def accuracy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(1) == targets).to(outputs.dtype)


class Bernoulli(Likelihood):
    """C labels, each present or not; targets [N, C] of zeros and ones."""

    name = "bernoulli"

    def columns(self, outputs: Tensor) -> int:
        return outputs.shape[1]

    def factor_times(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        return coefficients * (outputs.sigmoid() * (-outputs).sigmoid()).sqrt()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return targets.to(outputs.dtype) - outputs.sigmoid()

    def sample_score(self, outputs: Tensor, seed: int, draw: int, index: Tensor) -> Tensor:
        uniform = random_uniform(seed, draw, index, outputs.shape[1])
        return self.score(outputs, uniform < outputs.double().sigmoid())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype), reduction="none").sum(1)

    def accuracy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs > 0) == (targets > 0.5)).to(outputs.dtype).mean(1)


class Gaussian(Likelihood):
    """Regression with unit variance; targets [N, C]."""

    name = "gaussian"

    def columns(self, outputs: Tensor) -> int:
        return outputs.shape[1]

    def factor_times(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        return coefficients

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return targets.to(outputs.dtype) - outputs

    def sample_score(self, outputs: Tensor, seed: int, draw: int, index: Tensor) -> Tensor:
        return random_normal(seed, draw, index, outputs.shape[1]).to(outputs.dtype)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (targets.to(outputs.dtype) - outputs).square().sum(1)

    def accuracy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 1.0 - (targets.to(outputs.dtype) - outputs).square().mean(1)


LIKELIHOODS: dict[str, Likelihood] = {kind.name: kind() for kind in (Softmax, Bernoulli, Gaussian)}


def get_likelihood(name: str) -> Likelihood:
    """The likelihood of that name.

    >>> get_likelihood("softmax").name
    'softmax'
    """
    if name not in LIKELIHOODS:
        raise ValueError(f"unknown likelihood {name!r}; allowed are {', '.join(LIKELIHOODS)}")
    return LIKELIHOODS[name]


def check_sampling(sampling: str, passes: int) -> None:
    """Raise unless `sampling` is a known mode and `passes` makes sense for it."""
    if sampling not in get_args(Sampling):
        raise ValueError(f"unknown sampling {sampling!r}; allowed are {', '.join(get_args(Sampling))}")
    if passes < 1:
        raise ValueError(f"passes={passes}; at least one pass over an image is needed")
    if passes > 1 and sampling in ("exact", "empirical"):
        raise ValueError(
            f"passes={passes} with sampling={sampling!r}: its vectors are not random, so another pass would "
            "repeat the first; use passes=1, or sampling='sign' or 'categorical'"
        )


def rank_signs(seed: int, draw: int, draws: int, index: Tensor, size: int) -> Tensor:
    """Signs for draw number `draw` out of `draws` of each sample, orthogonal across the draws.

    Column r gets one random sign per sample, held across the draws, times entry (draw, r mod K) of a K x K
    Hadamard matrix with K the largest power of two that divides into `draws` from below. A single sign is
    uniform, so E[e e^T] = I holds for each draw; over K draws the cross terms of columns that differ modulo K
    cancel exactly instead of on average.

    Returns:
        float64 [N, size] of -1 and +1.
    """
    rows = 1 << (draws.bit_length() - 1)
    base = random_signs(seed, draw // rows, index, size)
    pattern = hadamard(rows, device=index.device)[draw % rows]
    return base * pattern[torch.arange(size, device=index.device) % rows]


def cotangents(
    outputs: Tensor,
    likelihood: Likelihood,
    sampling: Sampling = "sign",
    *,
    passes: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    targets: Tensor | None = None,
) -> Iterator[Tensor]:
    r"""Vectors v_1, v_2, ... whose squares sum to (an estimate of) the Fisher information.

    ============= =================================== ==================================================
    sampling      vectors                             value
    ============= =================================== ==================================================
    exact         every column of S                   the Fisher itself
    sign          S e with e uniform in {-1, +1}^R    unbiased, as E[e e^T] = I
    categorical   score at targets from the model     unbiased; the Monte Carlo of Achille et al. (2019)
    empirical     score at the given targets          the empirical Fisher
    ============= =================================== ==================================================

    Vectors of several passes are divided by sqrt(passes), so that a plain sum of squares is their mean.

    Args:
        outputs: [N, C], detached.
        passes: number of random vectors a sample ("sign" and "categorical").
        seed: together with the number of the draw and `index` it fixes every random number.
        index: int64 [N], the samples' positions in their dataset; 0..N-1 when left out.
        targets: needed by "empirical" alone.

    Yields:
        [N, C] in the dtype of `outputs` (float32 for half precisions).
    """
    check_sampling(sampling, passes)
    f = outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
    if index is None:
        index = torch.arange(len(f), device=f.device)
    if sampling == "empirical":
        if targets is None:
            raise ValueError(
                "sampling='empirical' squares the gradients at the labels, but no targets were given"
            )
        likelihood.check_targets(f, targets)
        yield likelihood.score(f, targets)
    elif sampling == "exact":
        size = likelihood.columns(f)
        for column in range(size):
            coefficients = f.new_zeros(len(f), size)
            coefficients[:, column] = 1
            yield likelihood.factor_times(f, coefficients)
    else:
        for draw in range(passes):
            if sampling == "sign":
                signs = rank_signs(seed, draw, passes, index, likelihood.columns(f)).to(f.dtype)
                vector = likelihood.factor_times(f, signs)
            else:
                vector = likelihood.sample_score(f, seed, draw, index)
            yield vector / passes**0.5
