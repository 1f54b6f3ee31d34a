"""The heads of probes: a new one, or the final Linear layer of any network, found by the hooks of one forward pass."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from t2v_lightning.functional import inputs
from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.probes.network_copy import copy_network


@dataclass
class _Call:
    """One call of one layer; the output is kept only for a Linear layer with [N, K], to save memory."""

    name: str
    layer: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output: Tensor | None

    def __str__(self) -> str:
        return f"{self.name or '(itself)'} ({type(self.layer).__name__}, {list(self.output_shape)})"


def new_head(
    features: int, like: nn.Module, num_classes: int = 2, generator: torch.Generator | None = None
) -> nn.Linear:
    """A Linear layer with entries uniform in +-1/sqrt(P), PyTorch's default.

    Args:
        features: P inputs.
        like: has the dtype and the device that the layer gets.
        num_classes: K >= 1 outputs.
        generator: source of the numbers; None for PyTorch's global one. With a CPU generator the head is the same on
            every device.

    Raises:
        ValueError: `num_classes` is not a positive integer.
    """
    check_num_classes(num_classes)
    old, bound = next(p for p in like.parameters() if p.is_floating_point()), 1 / math.sqrt(features)
    head = nn.Linear(features, num_classes, device="meta", dtype=old.dtype)
    head.to_empty(device=old.device)
    source = torch.device("cpu") if generator is None else generator.device
    with torch.no_grad():
        for parameter in head.parameters():
            numbers = torch.empty(parameter.shape, device=source)
            parameter.copy_(numbers.uniform_(-bound, bound, generator=generator))
    return head.eval()


def check_num_classes(num_classes: int) -> None:
    """Raises ValueError unless `num_classes` is a positive integer."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes must be a positive integer, got {num_classes!r}")


def split_head(module: nn.Module, batch: Inputs) -> tuple[nn.Module, nn.Linear, str]:
    """Takes the final Linear layer out of a network, in place.

    The head is the Linear layer whose output is the network's output in a forward pass in eval mode without
    gradients. It is replaced by `nn.Identity`; a second pass makes sure that `head(backbone(images))` equals the
    network's output. Both are passes of a copy that shares the weights, so what the network keeps between passes (a
    table that it computes once, say) is as before, and so is the state of the random number generator.

    Args:
        module: the network; changed in place and left in eval mode.
        batch: images [N, C, H, W] or other inputs of N >= 2 samples, on the module's device.

    Returns:
        (backbone, head, dotted path of the head in the backbone).

    Raises:
        TypeError: the network cannot be copied.
        ValueError: the network fails on this batch, or its output does not come straight from one call of a
            Linear layer on [N, P]; the message says what was found.
    """
    module.eval()
    with torch.no_grad(), _restored_rng(inputs.device_of(batch)):
        if any(map(is_lazy, module.parameters())):  # the first pass makes the weights of lazy layers
            _run(module, batch)
        name = _find_head(copy_network(module, keep_hooks=True, share_weights=True), batch)
    return module, _take_out(module, name), name


def _find_head(module: nn.Module, batch: Inputs) -> str:
    """The dotted path of the head; it is taken out of this module for the second pass."""
    kind = type(module).__name__
    output, calls = _run(module, batch)
    name = _maker_of(kind, output, calls)
    head = _take_out(module, name)
    try:
        again = head(inputs.call(module, inputs.transform(Tensor.clone, batch)))
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{kind} does not run without its head {name!r}: besides calling it, forward uses the layer's "
            f"attributes or its output's shape ({error})"
        ) from error
    if again.shape != output.shape or not torch.allclose(again, output, 1e-3, 1e-5, equal_nan=True):
        raise ValueError(
            f"the output of {kind} is not that of its last Linear layer {name!r}, but is changed in "
            "place afterwards; let forward return the layer's output (logits)"
        )
    return name


def _take_out(module: nn.Module, name: str) -> nn.Linear:
    """Puts `nn.Identity` in the place of the head, under all of its names."""
    head = cast(nn.Linear, module.get_submodule(name))
    for path in [n for n, m in module.named_modules(remove_duplicate=False) if m is head]:
        module.set_submodule(path, nn.Identity())
    return head


def _size_of(batch: Inputs) -> str:
    if isinstance(batch, Tensor) and batch.dim() == 4:
        return f"images of size {tuple(batch.shape[1:])}"
    return f"a batch of {inputs.describe(batch)}"


def _reason(error: Exception) -> str:
    """What an error says; for one without a text, such as a bare `assert`, the network's line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(torch.__path__[0])]
    return str(error) or f"{type(error).__name__} in `{own[-1].line}`"


def _run(module: nn.Module, batch: Inputs) -> tuple[Any, list[_Call]]:
    """The output of a pass, and the layers that it called."""
    try:
        return _record_calls(module, batch)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise ValueError(
            f"{type(module).__name__} failed on {_size_of(batch)}: {_reason(error)}\n"
            "Pass an input_size=(channels, height, width) that it accepts, or an example= of other inputs"
        ) from error


def _record_calls(module: nn.Module, batch: Inputs) -> tuple[Any, list[_Call]]:
    calls: list[_Call] = []

    def record(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                shape = tuple(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else ()
                kept = output if isinstance(layer, nn.Linear) and output.ndim == 2 else None
                calls.append(_Call(name, layer, shape, tuple(output.shape), kept))

        return hook

    leaves = [(name, layer) for name, layer in module.named_modules() if not any(layer.children())]
    linears = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear)]
    handles = [
        layer.register_forward_hook(record(name)) for name, layer in {**dict(leaves), **dict(linears)}.items()
    ]
    try:
        # the network may write into them
        return inputs.call(module, inputs.transform(Tensor.clone, batch)), calls
    finally:
        for handle in handles:
            handle.remove()


def _maker_of(kind: str, output: Any, calls: list[_Call]) -> str:
    """The dotted path of the Linear layer that made the output."""
    if not isinstance(output, Tensor):
        raise ValueError(
            f"{kind} returns {type(output).__name__}; its forward must return a tensor of logits [N, classes]"
        )
    makers = [call for call in calls if call.output is not None and _same_memory(call.output, output)]
    if not makers:
        alike = [str(c) for c in calls if isinstance(c.layer, nn.Linear) and c.output_shape == output.shape]
        raise ValueError(
            f"{kind} has no final Linear head: its output {list(output.shape)} does not come straight from a "
            f"Linear layer. Linear layers with an output of that shape: {', '.join(alike) or 'none'}. "
            f"Last layers called: {', '.join(map(str, calls[-3:])) or 'none'}. "
            "Wrap the network so that forward ends with one nn.Linear and returns its output"
        )
    head = makers[-1]
    times = sum(call.layer is head.layer for call in calls)
    if times > 1:
        raise ValueError(
            f"{kind} calls its head {head.name!r} {times} times in a forward pass; it must call it once"
        )
    if len(head.input_shape) != 2:
        raise ValueError(
            f"the head {head.name!r} of {kind} takes {list(head.input_shape)}; it must take one feature "
            "vector per image, [N, features]; pool before it"
        )
    if not head.name:
        raise ValueError(f"{kind} is only a head; there is no backbone to measure")
    return head.name


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


@contextmanager
def _restored_rng(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
