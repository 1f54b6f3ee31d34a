"""Intercepting every torch function call of a network's forward pass."""

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

RECOMPUTES = (
    "the network recomputes activations (gradient checkpointing), which hides its layers; switch checkpointing off "
    "for the probe"
)
"""Error of `torch.autograd.graph.disable_saved_tensors_hooks`, whose hooks checkpointing needs."""

Handler = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Takes a torch function with its arguments, and returns what the network gets for the call."""

# torch dispatches this function, written in Python, as one call; a copy without the dispatch calls the linear
# layers inside it one by one
_ATTENTION = types.FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, "has_torch_function": lambda tensors: False},
    "multi_head_attention_forward",
    F.multi_head_attention_forward.__defaults__,
)


class Intercept(TorchFunctionMode):
    """Hands every torch function call in its block to `handle`, including those of compiled parts and of attention.

    >>> called = []
    >>> def handle(func, args, kwargs):
    ...     called.append(func is F.linear)
    ...     return func(*args, **kwargs)
    >>> with Intercept(handle):
    ...     y = nn.Linear(2, 3)(torch.zeros(1, 2))
    >>> any(called)
    True
    """

    def __init__(self, handle: Handler) -> None:
        super().__init__()
        self.handle = handle
        self._stances: list[Any] = []

    def __enter__(self) -> "Intercept":
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


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters take no gradients inside the block, so that the graph holds only activations."""
    flags = {p: p.requires_grad for p in module.parameters()}
    try:
        for p in flags:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in flags.items():
            p.requires_grad_(flag)


@contextmanager
def activations_only(model: nn.Module) -> Iterator[None]:
    """Gradients of activations and of no parameters, in eager mode.

    Raises:
        RuntimeError: the network recomputes activations inside the block.
    """
    with (
        frozen(model),
        torch.enable_grad(),
        torch.compiler.set_stance("force_eager"),
        torch.autograd.graph.disable_saved_tensors_hooks(RECOMPUTES),
    ):
        yield


def no_gradient_error(layer: str) -> RuntimeError:
    """The error for a layer that must take part in the backward pass and cannot."""
    return RuntimeError(
        f"layer {layer!r} runs without gradients inside the network's forward pass (under torch.no_grad, or in a "
        "checkpointed block); switch that off, or leave its stage out with skip_layers"
    )


def control_flow_error(layer: str) -> RuntimeError:
    """The error for a layer that the network calls more often, or less often, than for the example."""
    return RuntimeError(
        f"layer {layer!r} ran a different number of times than in the tracing pass; data-dependent control flow is "
        "not supported"
    )
