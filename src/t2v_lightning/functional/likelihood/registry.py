"""The likelihoods by their names."""

from typing import Literal

from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.functional.likelihood.bernoulli import Bernoulli
from t2v_lightning.functional.likelihood.gaussian import Gaussian
from t2v_lightning.functional.likelihood.softmax import Softmax

LikelihoodName = Literal["softmax", "bernoulli", "gaussian"]

LIKELIHOODS: dict[str, Likelihood] = {kind.name: kind() for kind in (Softmax, Bernoulli, Gaussian)}


def get_likelihood(name: str) -> Likelihood:
    """The likelihood of that name.

    Raises:
        ValueError: there is none; the message lists those that exist.

    >>> get_likelihood("softmax").name
    'softmax'
    """
    if name not in LIKELIHOODS:
        raise ValueError(f"unknown likelihood {name!r}; allowed are {', '.join(LIKELIHOODS)}")
    return LIKELIHOODS[name]
