"""Affine weights of normalisation layers, and factors by themselves: every weight is a filter of its own."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2v_lightning.functional.layers.base import Call, LayerRule


class NormRule(LayerRule):
    """y = w * xhat + b with xhat the normalised input: the gradient is the sum of g * xhat over positions."""

    kind: ClassVar = "norm"

    def normalised(self, call: Call) -> Tensor:
        raise NotImplementedError

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        product = grad * self.normalised(call)
        return product.flatten(2).sum(2) if product.dim() > 2 else product


class BatchNormRule(NormRule):
    """Batch normalisation with its stored statistics; batch statistics would mix the samples."""

    functions: ClassVar = (F.batch_norm,)
    arguments: ClassVar = (
        "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
    )  # fmt: skip

    def normalised(self, call: Call) -> Tensor:
        o = call.options
        return F.batch_norm(call.input, o["running_mean"], o["running_var"], eps=o.get("eps", 1e-5))


class GroupNormRule(NormRule):
    functions: ClassVar = (F.group_norm,)
    arguments: ClassVar = ("input", "num_groups", "weight", "bias", "eps")

    def normalised(self, call: Call) -> Tensor:
        return F.group_norm(call.input, call.options["num_groups"], eps=call.options.get("eps", 1e-5))


class InstanceNormRule(NormRule):
    functions: ClassVar = (F.instance_norm,)
    arguments: ClassVar = (
        "input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps",
    )  # fmt: skip

    def normalised(self, call: Call) -> Tensor:
        return F.instance_norm(call.input, **call.options | {"bias": None, "momentum": 0.0})


class LayerNormRule(NormRule):
    """Layer normalisation over the last dimensions; positions before them share the weight."""

    functions: ClassVar[tuple[Any, ...]] = (F.layer_norm,)
    arguments: ClassVar = ["input", "normalized_shape", "weight", "bias", "eps"]

    def normalised(self, call: Call) -> Tensor:
        return F.layer_norm(call.input, call.options["normalized_shape"], eps=call.options.get("eps", 1e-5))

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        return (grad * self.normalised(call)).reshape(len(grad), -1, *call.weight.shape).sum(1)


class RMSNormRule(LayerNormRule):
    functions: ClassVar[tuple[Any, ...]] = (F.rms_norm,)
    arguments: ClassVar = ["input", "normalized_shape", "weight", "eps"]

    def normalised(self, call: Call) -> Tensor:
        return torch.rms_norm(call.input, call.options["normalized_shape"], eps=call.options.get("eps"))


class ScaleRule(LayerRule):
    """y = w * a with a parameter w that fits the last dimensions of a, as where RMSNorm is written out.

    The gradient is the sum of g * a over the positions that share a weight.
    """

    functions: ClassVar = (torch.mul, Tensor.mul)
    arguments: ClassVar = ("input", "weight")
    kind: ClassVar = None
    operator: ClassVar = True

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
        """The weight, on either side, is None unless it is a parameter that every sample is multiplied by."""
        factors = [*args, *(kwargs[name] for name in ("input", "other") if name in kwargs)]
        a, weight = factors[::-1] if isinstance(factors[0], nn.Parameter) else factors
        if (
            not isinstance(a, Tensor)
            or not isinstance(weight, nn.Parameter)
            or not _scales(weight.shape, a.shape)
        ):
            weight = None
        return Call(a, weight)

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        product, weight = grad * call.input, call.weight
        own = [1] * (product.dim() - weight.dim()) + [*weight.shape]
        shared = [d for d in range(1, product.dim()) if own[d] == 1]
        return (product.sum(shared) if shared else product).reshape(len(product), *weight.shape)


def _scales(weight: Sequence[int], a: Sequence[int]) -> bool:
    """Whether a factor of one shape is the same for all rows of an input of the other, and changes no shape.

    >>> _scales((5,), (2, 3, 5)), _scales((5, 1, 1), (2, 5, 3, 3)), _scales((2, 5), (2, 5)), _scales((5,), (2, 3, 1))
    (True, True, False, False)
    """
    own = [1] * (len(a) - len(weight)) + [*weight]
    fits = all(size in (1, of_a) for size, of_a in zip(own, a, strict=False))
    return 0 < len(weight) <= len(a) and len(a) > 1 and own[0] == 1 and fits
