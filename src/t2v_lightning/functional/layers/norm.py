"""Affine weights of normalisation layers: every weight is a filter of its own."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

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
