"""What a forward pass does besides giving an output: it may write into its inputs, or keep what it computes."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional import inputs
from t2v_lightning.functional.inputs import Inputs, tensors_in
from t2v_lightning.internals import is_norm, version_of

_Attributes = dict[tuple[nn.Module, str], Any]
_MISSING = object()
_OWN = frozenset(vars(nn.Module()))  # parameters, buffers, children, hooks


@dataclass(frozen=True)
class _Cache:
    """An attribute in which a module keeps tensors from one pass to the next, and what it holds before the first."""

    module: nn.Module
    name: str
    empty: Any


class SideEffects:
    """Calls a network, or a part of it, such that every pass is like the first and its inputs stay as they are.

    A network that writes into its inputs gets a copy of them. Attributes in which it keeps tensors (attention biases,
    say, that it computes once from a parameter) are as before the first pass while it runs, and hold afterwards what
    they held. A dict of tensors is such a cache if the network fills it again after it was emptied.

    Args:
        model: in eval mode.
        example: inputs [N, ...]; passes over the first sample find out.

    Attributes:
        writes: whether the network writes into its inputs.
        keeps: whether it keeps tensors from one pass to the next.

    Raises:
        ValueError: a layer is in train mode, so that a pass would move its statistics.
    """

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        _refuse_train_mode(model)
        one = _copy(inputs.take(inputs.detach(example), slice(0, 1)))
        held = _attributes(model)
        emptied: _Attributes = {
            key: {} for key, value in held.items() if isinstance(value, dict) and _holds_tensors(value)
        }
        start = held | emptied
        if emptied:
            try:
                found = _after_a_pass(model, _copy(one), held, start)
                refilled = all(found[key].keys() == held[key].keys() for key in emptied)
            except Exception:
                refilled = False
            if not refilled:  # tables of constants
                start = held
        versions = _versions(one)
        found = _after_a_pass(model, one, held, start)
        self.writes = _versions(one) != versions
        self._caches = [
            _Cache(*key, _separate(start.get(key, _MISSING)))
            for key, value in found.items()
            if _holds_tensors(value) and not _same(start.get(key, _MISSING), value)
        ]
        self.keeps = bool(self._caches)

    def call(self, network: Callable[..., Any], x: Inputs) -> Any:
        """The network's output for inputs [N, ...].

        Raises:
            RuntimeError: it writes into these inputs, and did not into the example.
        """
        versions = _versions(x)
        with self.forgotten():
            output = inputs.call(network, self.own(x))
        if _versions(x) != versions:
            raise RuntimeError(
                "the network writes into its inputs for some samples and not for others; let it compute a new tensor "
                "(x = x - mean instead of x.sub_(mean))"
            )
        return output

    def own(self, x: Inputs) -> Inputs:
        """x, or a copy for the network to write into."""
        return _copy(x) if self.writes else x

    @contextmanager
    def forgotten(self) -> Iterator[None]:
        """Caches are empty inside the block, and as they were after it."""
        held = {(c.module, c.name): vars(c.module).get(c.name, _MISSING) for c in self._caches}
        try:
            _put({(c.module, c.name): _separate(c.empty) for c in self._caches})
            yield
        finally:
            _put(held)


def _after_a_pass(model: nn.Module, x: Inputs, held: _Attributes, start: _Attributes) -> _Attributes:
    """The attributes that a pass leaves when it starts with those of `start`; the network's own are put back."""
    try:
        _put({key: _separate(value) for key, value in start.items()})
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            inputs.call(model, x)
        return _attributes(model)
    finally:
        _put(dict.fromkeys(_attributes(model), _MISSING) | held)


def _attributes(model: nn.Module) -> _Attributes:
    """Attributes of all modules that are None, a tensor or a container."""
    return {
        (module, name): value
        for module in model.modules()
        for name, value in vars(module).items()
        if name not in _OWN and (value is None or isinstance(value, (Tensor, dict, list)))
    }


def _put(attributes: Mapping[tuple[nn.Module, str], Any]) -> None:
    for (module, name), value in attributes.items():
        if value is _MISSING:
            vars(module).pop(name, None)
        else:
            vars(module)[name] = value


def _separate(value: Any) -> Any:
    """A container that can be filled apart from this one; anything else itself."""
    return copy.copy(value) if isinstance(value, (dict, list)) else value


def _holds_tensors(value: Any) -> bool:
    return next(tensors_in(value), None) is not None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(a[key] is b[key] for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
    return a is b


def _copy(x: Inputs) -> Inputs:
    return inputs.transform(Tensor.clone, x)


def _versions(x: Inputs) -> list[int]:
    return [version_of(tensor) for tensor in tensors_in(x)]


def _refuse_train_mode(model: nn.Module) -> None:
    """Before anything runs: in train mode a forward pass would already move the statistics."""
    for name, module in model.named_modules():
        if is_norm(module) and module.training and module.track_running_stats:
            raise ValueError(
                f"layer {name!r} ({type(module).__name__}) is in train mode: its batch statistics mix the samples, so "
                "there are no per-sample gradients; call model.eval() first (its stored statistics are then used and "
                "never move)"
            )
