r"""The likelihoods that a task can have: output factors of their Fisher information, losses, targets and wording.

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

`next_token` has a softmax block for each token of a sequence; see `functional.likelihood.next_token`.

A vector v with E[v v^T] = H makes (d/d theta <v, f>)^2 an unbiased estimate of the Fisher of theta.
`cotangents` gives such vectors in the four ways of the table in its docstring.
"""

from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.functional.likelihood.next_token import next_tokens
from t2v_lightning.functional.likelihood.registry import (
    LIKELIHOODS,
    TOKEN_LIKELIHOODS,
    LikelihoodName,
    get_likelihood,
)
from t2v_lightning.functional.likelihood.sampling import cotangents
from t2v_lightning.functional.likelihood.signs import Sampling, check_sampling, rank_signs

__all__ = [
    "LIKELIHOODS",
    "TOKEN_LIKELIHOODS",
    "Likelihood",
    "LikelihoodName",
    "Sampling",
    "check_sampling",
    "cotangents",
    "get_likelihood",
    "next_tokens",
    "rank_signs",
]
