"""Vectors whose squares add up to the Fisher information of the outputs, exactly or on average."""

from collections.abc import Iterator

import torch
from torch import Tensor

from t2v_lightning.functional.likelihood.base import Likelihood
from t2v_lightning.functional.likelihood.signs import Sampling, check_sampling


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
        outputs: [N, C], detached; [N, T, V] for "next_token".
        sampling: which vectors, see the table.
        passes: number of random vectors per sample ("sign" and "categorical").
        seed: together with the number of the draw and `index` it fixes every random number.
        index: int64 [N], the samples' positions in their dataset; 0..N-1 when left out.
        targets: needed by "empirical", and by "next_token", whose targets say which positions count.

    Yields:
        In the shape of `outputs`, and in the dtype of `outputs` (float32 for half precisions).
    """
    check_sampling(sampling, passes)
    f = outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
    if index is None:
        index = torch.arange(len(f), device=f.device)
    if sampling == "empirical" and targets is None:
        raise ValueError(
            "sampling='empirical' squares the gradients at the labels, but no targets were given"
        )
    yield from likelihood.vectors(f, sampling, passes=passes, seed=seed, index=index, targets=targets)
