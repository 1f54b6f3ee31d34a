r"""The optimum of a linear head, by Newton's method with conjugate gradients.

For inputs z_n (features and a one), outputs f_n = theta z_n and weights w_n the head minimises

.. math:: \sum_n w_n \ell(f_n, y_n) + \tfrac{\lambda}{2} \|\theta\|^2 .

Every likelihood here has outputs that are its natural parameters, so that the Hessian of a sample's loss in its outputs
is its Fisher information H_n, and the Hessian of the whole times a matrix V is :math:`\sum_n w_n H_n V z_n z_n^\top +
\lambda V`. Each step solves for it roughly (Dembo, Eisenstat and Steihaug, *Inexact Newton methods*, 1982) and is
halved until the loss falls far enough.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from t2v_lightning.functional.likelihood import Likelihood

Batch = tuple[Tensor, Tensor, Tensor]
"""Inputs float64 [n, Q], targets [n, ...] and weights float64 [n] of some samples."""

Progress = Callable[[float, float, int], object]
"""Takes the weighted mean loss and accuracy, and the number of the step after which they hold."""

_STEPS, _SOLVER_STEPS = 100, 1000
_EXACT = 1e-10
"""Relative distance from the optimum that is near enough; |gradient| / lambda bounds it."""
_FLAT = 1e-9
"""Share of the first gradient that is the last without a penalty."""


def with_ones(features: Tensor) -> Tensor:
    """Inputs of a head with a bias: float64 [n, P + 1] of features [n, P].

    >>> with_ones(torch.tensor([[2.0, 3.0]]))
    tensor([[2., 3., 1.]], dtype=torch.float64)
    """
    inputs = features.new_ones(len(features), features.shape[1] + 1, dtype=torch.float64)
    inputs[:, :-1] = features
    return inputs


@torch.no_grad()
def fit_newton(
    batches: Iterable[Batch],
    num_outputs: int,
    likelihood: Likelihood,
    penalty: float,
    progress: Progress | None = None,
    near: float = 0.0,
) -> Tensor:
    """The head of least loss, the same to the last digit whenever the samples are.

    A list of one batch is kept in the space that its rows span where that is much smaller, and its outputs in memory;
    anything else is gone through once for each product with the Hessian, so that memory holds one batch at a time.

    Args:
        batches: all samples, to be gone through many times; weights sum to 1.
        num_outputs: C.
        likelihood: gives loss, score and Fisher information of outputs.
        penalty: lambda, 0 or more. At 0 classes that a plane parts have no optimum, and the steps end once the
            gradient has fallen to 1e-9 of the first.
        progress: called after each step.
        near: be content with a step that promises to gain less than this share of the objective.

    Returns:
        float64 [C, Q].

    >>> from t2v_lightning.functional.likelihood import get_likelihood
    >>> z, half = torch.tensor([[1.0], [2.0]]).double(), torch.full((2,), 0.5).double()
    >>> fit_newton([(z, torch.tensor([[2.0], [4.0]]), half)], 1, get_likelihood("gaussian"), 0.0)
    tensor([[2.]], dtype=torch.float64)
    """
    batches, basis = in_row_space(batches)
    theta = _minimise(
        _Objective(batches, likelihood, penalty), num_outputs, progress or (lambda *_: None), near
    )
    return theta if basis is None else theta @ basis.T


def in_row_space(batches: Iterable[Batch]) -> tuple[Iterable[Batch], Tensor | None]:
    """A list of one batch with few rows in the space that they span, and its orthonormal basis [Q, n].

    A head of these inputs times the basis transposed is the head of the inputs as they came. Anything else comes back
    as it is, with None.
    """
    if isinstance(batches, list) and len(batches) == 1:
        inputs, targets, weights = batches[0]
        if 2 * len(inputs) <= inputs.shape[1]:
            basis, triangle = torch.linalg.qr(inputs.T)
            return [(triangle.T, targets, weights)], basis
    return batches, None


class _Objective:
    """The function to minimise, its gradient and its Hessian, each at the point that `at` was last called with."""

    def __init__(self, batches: Iterable[Batch], likelihood: Likelihood, penalty: float) -> None:
        self.batches, self.likelihood, self.penalty = batches, likelihood, penalty
        self.keeps_outputs = isinstance(batches, list)
        self.outputs: list[Tensor] = []

    def at(self, theta: Tensor) -> tuple[list[float], Tensor]:
        """(objective, mean loss, mean accuracy, length of the gradient), and the gradient [C, Q]."""
        self.theta, self.outputs = theta, []
        gradient = self.penalty * theta
        means = theta.new_zeros(2)
        for z, y, w in self.batches:
            f = z @ theta.T
            gradient -= (w[:, None] * self.likelihood.score(f, y)).T @ z
            means += torch.stack([w @ self.likelihood.loss(f, y), w @ self.likelihood.accuracy(f, y)])
            if self.keeps_outputs:
                self.outputs.append(f)
        objective = means[:1] + 0.5 * self.penalty * theta.square().sum()
        return torch.cat([objective, means, gradient.norm()[None]]).tolist(), gradient

    def hessian_times(self, direction: Tensor) -> Tensor:
        total = self.penalty * direction
        for number, (z, _, w) in enumerate(self.batches):
            f = self.outputs[number] if self.keeps_outputs else z @ self.theta.T
            total += (w[:, None] * self.likelihood.fisher_times(f, z @ direction.T)).T @ z
        return total


def _minimise(objective: _Objective, num_outputs: int, progress: Progress, near: float) -> Tensor:
    first_inputs = next(iter(objective.batches))[0]
    theta = first_inputs.new_zeros(num_outputs, first_inputs.shape[1])
    (value, _, _, length), gradient = objective.at(theta)
    first, reach, step = length, 0.0, 0
    while length > (_EXACT * objective.penalty * reach or _FLAT * first) and step < _STEPS:
        direction = _solve(objective, gradient, min(0.1, max(0.01, math.sqrt(length / first))))
        slope, size = torch.stack([(gradient * direction).sum(), direction.norm()]).tolist()
        before, share = length, 1.0
        while True:
            (trial, loss, accuracy, length), new = objective.at(theta + share * direction)
            falls = trial <= value + 1e-4 * share * slope
            if falls or length < 0.5 * before or share < 1e-9:  # rounding hides the fall of the last steps
                break
            share /= 2
        theta, gradient, value, step = objective.theta, new, trial, step + 1
        reach = float(theta.norm())
        progress(loss, accuracy, step)
        if share * size <= 0.1 * _EXACT * reach or -0.5 * slope <= near * value:
            break
    return theta


def _solve(objective: _Objective, gradient: Tensor, tolerance: float) -> Tensor:
    """Hessian^-1 (-gradient) up to a residual of `tolerance` times the length of the gradient."""
    solution = torch.zeros_like(gradient)
    residual = -gradient
    along = residual
    length = first = residual.square().sum()
    for _ in range(_SOLVER_STEPS):
        product = objective.hessian_times(along)
        curvature = (along * product).sum()
        share = torch.where(curvature > 0, length / curvature, 0.0)
        solution = solution + share * along
        residual = residual - share * product
        before, length = length, residual.square().sum()
        if bool((length <= tolerance**2 * first) | (curvature <= 0)):  # the only wait for a GPU
            break
        along = residual + length / before * along
    return solution
