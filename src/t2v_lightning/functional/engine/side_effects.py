"""What a forward pass does besides giving an output: it may write into its inputs, or keep what it computes."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional import inputs
from t2v_lightning.functional.engine.intercept import Intercept
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
    they held. What an attribute holds beforehand is such a cache if the network fills it again once it is empty.

    Args:
        model: in eval mode.
        example: inputs [N, ...]; passes over the first sample find out.

    Attributes:
        writes: whether the network writes into its inputs.
        used: names of the parameters that the first pass of all computed something from.
        keeps: whether it keeps tensors from one pass to the next.

    Raises:
        ValueError: a layer is in train mode, so that a pass would move its statistics; or an attribute holds other
            tensors than those that the network would put there.
    """

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        _refuse_train_mode(model)
        first = inputs.take(inputs.detach(example), slice(0, 1))
        one, held, used = _copy(first), _attributes(model), set[Tensor]()
        versions = _versions(one)
        with Intercept(partial(_note_uses, set(model.parameters()), used)):
            found = _after_a_pass(model, one, held, held)
        self.used = {name for name, parameter in model.named_parameters() if parameter in used}
        # what is written through `.data` or NumPy does not count as a version
        same = all(map(torch.equal, tensors_in(one), tensors_in(first)))
        self.writes = _versions(one) != versions or not same
        kept = [key for key, value in held.items() if _holds_tensors(value) and _same(found.get(key), value)]
        emptied = _emptied(model, first, held, kept)
        start = held | emptied
        if emptied:
            found = _after_a_pass(model, _copy(first), held, start)
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


def _note_uses(
    parameters: set[Tensor],
    used: set[Tensor],
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Calls a function; if it returns a new tensor, the parameters that it was given are noted."""
    result = func(*args, **kwargs)
    if any(tensor not in parameters for tensor in tensors_in([result])):
        used.update(tensor for tensor in tensors_in([args, kwargs]) if tensor in parameters)
    return result


def _emptied(
    model: nn.Module, x: Inputs, held: _Attributes, kept: list[tuple[nn.Module, str]]
) -> _Attributes:
    """The kept attributes that a pass fills again, as they are when they are empty; constants are not among them.

    Raises:
        ValueError: it fills one with other tensors.
    """
    together = {key: _empty_states(held[key])[0] for key in kept}
    if kept and all(_fills_again(model, x, held, together).values()):
        return together
    result: _Attributes = {}
    for module, name in kept:
        for empty in _empty_states(held[module, name]):
            again = _fills_again(model, x, held, {(module, name): empty}).get((module, name))
            if again is False:
                raise ValueError(
                    f"attribute {name!r} of {type(module).__name__} holds tensors, and the network computes others in "
                    "their place if it finds the attribute empty: they are from before its weights changed, or set by "
                    "hand; empty the attribute, or store what is constant as a buffer (register_buffer)"
                )
            if again:
                result[module, name] = empty
                break
    return result


def _empty_states(value: Any) -> list[Any]:
    """What an attribute that holds such a value may have held before the first pass, the likeliest first."""
    if isinstance(value, Tensor):
        return [None, _MISSING]
    cleared = () if isinstance(value, tuple) else copy.copy(value)
    if cleared:
        cleared.clear()
    return [cleared, None, _MISSING]


def _fills_again(
    model: nn.Module, x: Inputs, held: _Attributes, empty: _Attributes
) -> dict[tuple[nn.Module, str], bool | None]:
    """Whether each attribute, once empty, gets what it held; None for one that gets something of another form."""
    try:
        found = _after_a_pass(model, _copy(x), held, held | empty)
    except Exception:  # the network needs what it held
        return dict.fromkeys(empty)
    return {key: _equals(found.get(key), held[key]) for key in empty}


def _equals(new: Any, old: Any) -> bool | None:
    """Whether the tensors in a value are those of an older one, which may have more keys; None if it has others."""
    if isinstance(new, dict) and isinstance(old, dict):
        old = {key: old[key] for key in new if key in old}
    pairs = list(tensors_in(new)), list(tensors_in(old))
    if not pairs[0] or [t.shape for t in pairs[0]] != [t.shape for t in pairs[1]]:
        return None
    return all(torch.allclose(a.to(b), b, rtol=1e-3, atol=1e-5) for a, b in zip(*pairs, strict=True))


def _attributes(model: nn.Module) -> _Attributes:
    """Attributes of all modules that are None, a tensor or a container."""
    return {
        (module, name): value
        for module in model.modules()
        for name, value in vars(module).items()
        if name not in _OWN and (value is None or isinstance(value, (Tensor, dict, list, tuple)))
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
