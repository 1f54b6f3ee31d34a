"""Calls of BatchNorm and InstanceNorm whose backward pass is right for every memory layout.

On a CPU torch (2.14) reads the gradient in the wrong order where a map [N, C, H, W] has a dimension of size 1 besides
its channels: if the strides there say neither that the gradient is channels-last nor that it is not, the entries of
one layout are taken for those of the other. A batch of one image is such a map, and so is every map of InstanceNorm,
which torch computes as the BatchNorm of one image with N * C channels.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.internals import is_transformed

_BATCH_NORMS = {F.batch_norm, torch.batch_norm}
_INSTANCE_NORMS = {F.instance_norm, torch.instance_norm}
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def call_function(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`func(*args, **kwargs)`, with the right gradients where `func` is a normalisation.

    Nothing is copied unless the layout of the input or of its gradient is one that torch mistakes.
    """
    if func not in _BATCH_NORMS and func not in _INSTANCE_NORMS:
        return func(*args, **kwargs)
    x = args[0] if args else kwargs["input"]
    transformed = is_transformed(x)  # `vmap` joins samples and channels, and so makes a batch of one
    if x.dim() not in _CHANNELS_LAST or x.device.type != "cpu":
        return func(*args, **kwargs)
    if func in _BATCH_NORMS and not transformed and 1 not in (x.shape[0], *x.shape[2:]):
        return func(*args, **kwargs)
    ordered = x.contiguous() if transformed else _in_order(x)
    args, kwargs = ((ordered, *args[1:]), kwargs) if args else (args, kwargs | {"input": ordered})
    y: Tensor = func(*args, **kwargs)
    if transformed:
        y = _InOrder.apply(y)
    elif y.requires_grad:
        y.register_hook(_in_order if func in _BATCH_NORMS else Tensor.contiguous)
    return y


def _in_order(x: Tensor) -> Tensor:
    """x itself, or a contiguous copy if it is channels-last and its strides do not say so."""
    layout = _CHANNELS_LAST[x.dim()]
    if x.is_contiguous() or not x.is_contiguous(memory_format=layout):
        return x
    usual = torch.empty(x.shape, device="meta").to(memory_format=layout).stride()
    return x if x.stride() == usual else x.contiguous()


class _InOrder(torch.autograd.Function):
    """A copy whose gradient is contiguous; hooks do not exist inside `vmap`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous()
