"""Matrix products with a parameter on the right, y = a W: GPT-2's `Conv1D`, `x @ W` and `einsum("btc,cf->btf", x, W)`.

Such a weight [C, F] is that of a linear layer transposed, so that a filter, which makes one output, is a column of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from t2v_lightning.functional.layers.base import Call
from t2v_lightning.functional.layers.linear import LinearRule


class MatmulRule(LinearRule):
    """y_t = a_t W with W [C, F], a parameter: the gradient of a sample is the sum over positions t of a_t g_t^T."""

    functions: ClassVar[tuple[Any, ...]] = (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm)
    arguments: ClassVar[Sequence[str]] = ("input", "weight")
    aliases: ClassVar = {"other": "weight", "mat2": "weight"}
    operator: ClassVar = True

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
        """The weight is None unless it is a matrix of parameters that rows of inputs are multiplied by."""
        named = {self.aliases.get(name, name): value for name, value in kwargs.items()}
        return _as_layer(super().bind(args, named))

    def filter_dim(self, call: Call) -> int:
        return 1

    def channels(self, call: Call) -> tuple[int, int]:
        return call.weight.shape[0], 1

    def sketched(self, call: Call, sums: Tensor) -> Call:
        linear = super().sketched(Call(call.input, call.weight.mT, call.options), sums)
        return Call(linear.input, linear.weight.mT, call.options)

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        return super().gradients(call, grad).mT


class AddmmRule(MatmulRule):
    """y_t = beta b + alpha a_t W."""

    functions: ClassVar = (torch.addmm, Tensor.addmm)
    arguments: ClassVar = ("bias", "input", "weight")
    aliases: ClassVar = {"input": "bias", "mat1": "input", "mat2": "weight"}

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        return super().gradients(call, grad) * _alpha(call)

    def squares(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        return super().squares(call, grad, samples) * _alpha(call) ** 2

    def noise_factors(self, call: Call, std: Tensor) -> tuple[Tensor, Tensor]:
        left, right = super().noise_factors(call, std)
        return left * abs(_alpha(call)), right


class EinsumRule(MatmulRule):
    """The same written as `einsum`, with the weight in either layout: "...c,cf->...f" or "...c,fc->...f"."""

    functions: ClassVar = (torch.einsum,)

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
        operands = _operands(args)
        found = _linear_equation(args[0], len(operands))
        if found is None:
            return Call(operands[0], None)  # type: ignore[arg-type]  # as of a layer without a weight
        first, transposed = found
        a, weight = operands[::-1] if first else operands
        return _as_layer(Call(a, weight, {"transposed": transposed}))

    def filter_dim(self, call: Call) -> int:
        return 0 if call.options["transposed"] else 1

    def channels(self, call: Call) -> tuple[int, int]:
        return call.weight.shape[1 - self.filter_dim(call)], 1

    def sketched(self, call: Call, sums: Tensor) -> Call:
        if call.options["transposed"]:
            return LinearRule.sketched(self, call, sums)
        return super().sketched(call, sums)

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        gradients = LinearRule.gradients(self, call, grad)
        return gradients if call.options["transposed"] else gradients.mT


def _alpha(call: Call) -> float:
    return float(call.options.get("alpha", 1))


def outputs_dim(func: Callable[..., Any], args: Sequence[Any], factor: Tensor, parameter: Tensor) -> int:
    """The dimension of a parameter's matrices, 0 or 1, that makes the outputs of a product with a factor from them.

    >>> w = torch.zeros(4, 5)
    >>> outputs_dim(torch.matmul, (torch.zeros(2, 4), w), w, w), outputs_dim(torch.matmul, (w, torch.zeros(5, 2)), w, w)
    (1, 0)
    """
    if func is torch.einsum:
        equation = str(args[0]).replace(" ", "")
        terms = equation.partition("->")[0].split(",")
        number = next((n for n, operand in enumerate(_operands(args)) if operand is factor), -1)
        last = terms[number][-1:] if number < len(terms) else ""
        return int("->" in equation and last in equation.partition("->")[2])
    if factor is not next((operand for operand in reversed(args) if isinstance(operand, Tensor)), None):
        return 0
    own, of_factor = parameter.shape[-2:], factor.shape[-2:]
    turned = own != of_factor or (own[0] == own[-1] and factor.stride()[-2:] == parameter.stride()[-2:][::-1])
    return int(not turned)


def _operands(args: Sequence[Any]) -> Sequence[Any]:
    """The tensors of a call of `einsum`."""
    return args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]


def _as_layer(call: Call) -> Call:
    """The call, without its weight unless that is a matrix of parameters with rows of inputs on its left."""
    a, weight = call.input, call.weight
    is_layer = isinstance(weight, nn.Parameter) and weight.dim() == 2 and a.dim() > 1
    return call if is_layer else Call(a, None)  # type: ignore[arg-type]


def _linear_equation(equation: Any, operands: int) -> tuple[bool, bool] | None:
    """Whether the matrix of a product of rows and a matrix comes first, and whether it is [F, C]; None for others.

    >>> _linear_equation("btc,cf->btf", 2), _linear_equation("fc, ...c -> ...f", 2), _linear_equation("bij,bjk->bik", 2)
    ((False, False), (True, True), None)
    """
    if not isinstance(equation, str) or "->" not in equation or operands != 2:
        return None
    left, _, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    for first in (False, True):
        a, weight = terms[::-1] if first else terms
        letters = a[-1:] + result[-1:]
        if a[:-1] == result[:-1] and len(a) > 1 and len({*letters}) == 2 and not {*letters} & {*a[:-1]}:
            for transposed in (False, True):
                if weight == (letters[::-1] if transposed else letters):
                    return first, transposed
    return None
