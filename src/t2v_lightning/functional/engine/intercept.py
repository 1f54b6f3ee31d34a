"""Seeing, and changing, every torch function call of a network's forward pass."""

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

RECOMPUTES = (
    "the network recomputes activations (gradient checkpointing), which hides its layers; switch checkpointing off "
    "for the probe"
)
"""Said by `torch.autograd.graph.disable_saved_tensors_hooks`, which checkpointing needs."""

WatchedCall = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

# torch runs the body of this function, written in Python, out of a mode's sight; a copy that skips the
# dispatch keeps the linear layers inside it visible
_ATTENTION = types.FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, "has_torch_function": lambda tensors: False},
    "multi_head_attention_forward",
    F.multi_head_attention_forward.__defaults__,
)


class Watcher(TorchFunctionMode):
    """Hands every torch function call inside it to `handle`, looking into compiled parts and multi-head attention."""

    def __init__(self, handle: WatchedCall) -> None:
        super().__init__()
        self.handle = handle
        self._stances: list[Any] = []

    def __enter__(self) -> "Watcher":
        self._stances.append(torch.compiler.set_stance("force_eager"))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._stances.pop().__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.multi_head_attention_forward:
            with self:
                return _ATTENTION(*args, **kwargs or {})
        return self.handle(func, args, kwargs or {})


def hidden_layer(layer: str) -> RuntimeError:
    """Of a layer that must take part in the backward pass and cannot."""
    return RuntimeError(
        f"layer {layer!r} runs without gradients inside the network's forward pass (under torch.no_grad, or in a "
        "checkpointed block); switch that off, or leave its stage out with skip_layers"
    )
