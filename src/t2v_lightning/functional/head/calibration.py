r"""How sure a head may be, found on samples that it was not fitted to.

A head that parts the classes of its own samples is sure of all of them, however many new ones it would get wrong. So
the samples are halved, a head is fitted to each half, and its outputs f for the other half give the sharpness s, the
inverse of the temperature of Guo et al. (*On Calibration of Modern Neural Networks*, ICML 2017):

.. math:: s = \arg\min_{0 \le s \le 1} \sum_n w_n \ell(s f_n, y_n) .
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from t2v_lightning.functional.head.newton import Batch, fit_newton
from t2v_lightning.functional.likelihood import Likelihood

_NEAR = 0.05
"""A step that promises to gain less than this share of the objective is the last one of a head that only predicts."""
_TRIALS = 30


@torch.no_grad()
def cross_fitted_outputs(
    batches: Iterable[Batch], halves: Tensor, num_outputs: int, likelihood: Likelihood, penalty: float
) -> list[Tensor]:
    """Outputs for each sample of a head that was fitted, roughly, to the other half.

    Args:
        batches: all samples, as for `fit_newton`.
        halves: bool [N], which half each sample is in, in the order of the batches; each half has weight.
        num_outputs: C.
        likelihood: of the targets.
        penalty: of the head.

    Returns:
        float64 [n, C] for each batch.
    """
    heads = []
    for members in (halves, ~halves):
        part: Iterable[Batch] = _Part(batches, members)
        if isinstance(batches, list):
            part = list(part)
        heads.append(fit_newton(part, num_outputs, likelihood, penalty, near=_NEAR))
    outputs, start = [], 0
    for z, _, _ in batches:
        first = halves[start : start + len(z), None].to(z.device)
        outputs.append(torch.where(first, z @ heads[1].T, z @ heads[0].T))
        start += len(z)
    return outputs


@torch.no_grad()
def best_sharpness(
    outputs: list[Tensor], batches: Iterable[Batch], likelihood: Likelihood, counted: Tensor
) -> float:
    """The factor of the outputs, 0 to 1, that makes the targets likeliest.

    Their loss is convex in it: Newton's method, kept inside the interval that the sign of the slope leaves.

    Args:
        outputs: [n, C] for each batch.
        batches: targets and weights; the inputs are not read.
        likelihood: of the targets.
        counted: bool [N], which samples to judge by; the others have no weight.

    >>> from t2v_lightning.functional.likelihood import get_likelihood
    >>> f = torch.tensor([[4.0], [4.0], [4.0]])
    >>> batch = (f, torch.tensor([[1.0], [1.0], [0.0]]), torch.full((3,), 1 / 3).double())
    >>> s = best_sharpness([f], [batch], get_likelihood("bernoulli"), torch.ones(3).bool())
    >>> round(torch.tensor(4 * s).sigmoid().item(), 6)  # two out of three
    0.666667
    """
    low, high, s = 0.0, 1.0, 1.0
    sizes = [len(f) for f in outputs]
    for _ in range(_TRIALS):
        slope = curvature = 0.0
        for f, (_, y, every), part in zip(outputs, batches, counted.split(sizes), strict=True):
            w = every * part.to(every.device)
            scaled = s * f
            gain = w @ (likelihood.score(scaled, y) * f).sum(1).to(w.dtype)
            bend = w @ (likelihood.fisher_times(scaled, f) * f).sum(1).to(w.dtype)
            down, up = torch.stack([gain, bend]).tolist()
            slope, curvature = slope - down, curvature + up
        if s == 1.0 and slope <= 0:
            return 1.0
        low, high = (s, high) if slope < 0 else (low, s)
        step = slope / curvature if curvature > 0 else slope
        if abs(step) <= 1e-9 or high - low <= 1e-12:
            break
        s = s - step if low < s - step < high else (low + high) / 2
    return s


class _Part:
    """Some of the samples, with weights that sum to 1."""

    def __init__(self, batches: Iterable[Batch], members: Tensor) -> None:
        self.batches, self.members = batches, members
        self.weight = sum(float(w.sum()) for _, _, w in self._those())

    def __iter__(self) -> Iterator[Batch]:
        for z, y, w in self._those():
            yield z, y, w / self.weight

    def _those(self) -> Iterator[Batch]:
        start = 0
        for z, y, w in self.batches:
            which = self.members[start : start + len(w)].to(w.device)
            yield z[which], y[which], w[which]
            start += len(w)
