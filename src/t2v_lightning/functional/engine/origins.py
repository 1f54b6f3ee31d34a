"""What the tensors of a forward pass are computed from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from t2v_lightning.functional.inputs import Inputs, tensors_in
from t2v_lightning.internals import is_transformed, view_base


@dataclass(frozen=True)
class Origin:
    """Of one tensor.

    Attributes:
        parameters: names of those that it is computed from.
        inputs: it is computed from the network's inputs.
        selected: which rows it has, or in which order, depends on the values of the inputs.
    """

    parameters: frozenset[str] = frozenset()
    inputs: bool = False
    selected: bool = False


_NEITHER = Origin()
_PICKS = {
    *(
        torch.masked_select,
        Tensor.masked_select,
        torch.nonzero,
        Tensor.nonzero,
        torch.argwhere,
        Tensor.argwhere,
    ),
    *(torch.unique, Tensor.unique, torch.unique_consecutive, Tensor.unique_consecutive),
}
"""Functions whose result has as many rows as the values of their arguments say."""


class Origins:
    """Follows the tensors of a forward pass from function call to function call.

    Args:
        parameters: parameter -> its name.
        x: the inputs of the pass.
    """

    def __init__(self, parameters: Mapping[Tensor, str], x: Inputs) -> None:
        self._parameters = parameters
        self._known: Any = WeakIdKeyDictionary()
        for tensor in tensors_in(x):
            self._known[tensor] = Origin(inputs=True)

    def of(self, tensor: Tensor) -> Origin:
        """The origin of a tensor that a call was given or has returned."""
        if tensor in self._parameters:
            return Origin(frozenset([self._parameters[tensor]]))
        found: Origin = _NEITHER if is_transformed(tensor) else self._known.get(tensor, _NEITHER)
        return found

    def note(self, tensor: Tensor, origin: Origin) -> None:
        """Sets the origin of a tensor."""
        self._known[tensor] = origin

    def record(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Notes where the result of a call comes from, and what it has written."""
        given = list(tensors_in([args, kwargs]))
        origins = [self.of(tensor) for tensor in given]
        if not any(o is not _NEITHER for o in origins):
            return
        origin = Origin(
            frozenset().union(*(o.parameters for o in origins)),
            any(o.inputs for o in origins),
            any(o.selected for o in origins) or self._selects(func, args),
        )
        changed = [given[0]] if result is None or _in_place(func) else []  # x[mask] = y, x.add_(y)
        bases = [base for tensor in changed if (base := _base(tensor)) is not None]
        for tensor in [*tensors_in([result]), *changed, *bases]:
            if tensor not in self._parameters and not is_transformed(tensor):
                self._known[tensor] = origin

    def _selects(self, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        """Whether a call picks rows by the values of the inputs."""
        if func in _PICKS or (func in (torch.where, Tensor.where) and len(args) == 1):
            return any(self.of(tensor).inputs for tensor in tensors_in(args))
        if func is Tensor.__getitem__:
            whole = isinstance(args[1], Tensor)  # x[order]: rows in another order
            by_values = [i for i in tensors_in([args[1]]) if whole or i.dtype in (torch.bool, torch.uint8)]
            return self.of(args[0]).inputs and any(self.of(index).inputs for index in by_values)
        if func in (torch.repeat_interleave, Tensor.repeat_interleave):
            return any(self.of(repeats).inputs for repeats in tensors_in(args[1:]))
        return False


def _in_place(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def _base(tensor: Tensor) -> Tensor | None:
    return None if is_transformed(tensor) else view_base(tensor)
