"""The likelihoods by their names."""

from typing import Literal

from t2v_lightning._spelling import did_you_mean
from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.functional.likelihood.bernoulli import Bernoulli
from t2v_lightning.functional.likelihood.gaussian import Gaussian
from t2v_lightning.functional.likelihood.next_token import NextToken, NextTokenSum
from t2v_lightning.functional.likelihood.softmax import Softmax

LikelihoodName = Literal["softmax", "bernoulli", "gaussian", "next_token", "next_token_sum"]

LIKELIHOODS: dict[str, Likelihood] = {kind.name: kind() for kind in (Softmax, Bernoulli, Gaussian)}
"""Of targets that are labels of a sample."""

TOKEN_LIKELIHOODS: dict[str, Likelihood] = {kind.name: kind() for kind in (NextToken, NextTokenSum)}
"""Of the tokens of a sequence."""


def get_likelihood(name: str) -> Likelihood:
    """The likelihood of that name.

    Raises:
        ValueError: there is none; the message lists those that exist.

    >>> get_likelihood("softmax").name
    'softmax'
    """
    known = LIKELIHOODS | TOKEN_LIKELIHOODS
    if name not in known:
        raise ValueError(
            f"unknown likelihood {name!r}; allowed are {', '.join(known)}{did_you_mean(name, known)}"
        )
    return known[name]
