"""The part of a network that all samples share: what it computes from parameters alone, such as relative positions.

DeBERTa cuts a table of distances, projects it in every block, and repeats the result for the samples of a batch. Such
tensors have a gradient of each sample's own only where they meet what is computed from the inputs. There they are taken
out of the graph and expanded to [N, ...]; the gradients that arrive are carried on to the parameters by automatic
differentiation of the shared part, for all samples at once.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from t2v_lightning.functional.engine.intercept import control_flow_error
from t2v_lightning.functional.engine.origins import Origin, Origins
from t2v_lightning.functional.engine.usage import layer_name
from t2v_lightning.functional.inputs import Inputs, tensors_in
from t2v_lightning.functional.layers import RULES

Run = Callable[[Callable[..., Any], Any, Any], Any]
Deliver = Callable[[str, Tensor], None]

_EXPANSIONS = {
    *(Tensor.expand, Tensor.expand_as, Tensor.repeat, Tensor.tile, Tensor.broadcast_to),
    *(torch.tile, torch.broadcast_to),
}


class SharedPart:
    """The shared part of one forward pass.

    Args:
        parameters: of the network, with their names.
        names: of those whose gradients it gives.
        x: inputs of the pass, [N, ...].
        samples: N.
        expansions: which calls that expand shared tensors do so for the samples, in order; None finds out by the
            shapes, which may mistake another dimension of the same size.

    Attributes:
        expanded: those that were found.
    """

    def __init__(
        self,
        parameters: Mapping[Tensor, str],
        names: Collection[str],
        x: Inputs,
        samples: int,
        expansions: tuple[bool, ...] | None,
    ) -> None:
        self.expanded: list[bool] = []
        self._samples, self._expansions = samples, expansions
        self._origins = Origins(parameters, x)
        self._leaves = {p: p.detach().requires_grad_() for p, name in parameters.items() if name in names}
        self._by_name = {parameters[p]: leaf for p, leaf in self._leaves.items()}

    def sources(self, tensor: Tensor) -> frozenset[str]:
        """Names of the parameters that a shared tensor is computed from; none for other tensors."""
        origin = self._origins.of(tensor)
        if origin.inputs or not (tensor.requires_grad or tensor in self._leaves):
            return frozenset()
        return origin.parameters & self._by_name.keys()

    def call(
        self,
        run: Run,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tie: Callable[[Tensor, Tensor], Tensor],
    ) -> tuple[Any, bool]:
        """The result of a torch function call, and whether that belongs to the shared part.

        Args:
            run: makes the call.
            func, args, kwargs: of the call.
            tie: takes a shared tensor and the same for each sample, [N, ...], and returns the latter tied to the graph.
        """
        given = list(tensors_in([args, kwargs]))
        shared = [tensor for tensor in given if self.sources(tensor)]
        if not shared:
            result, within = run(func, args, kwargs), False
            self._origins.record(func, args, kwargs, result)
            return result, within
        origins = [self._origins.of(tensor) for tensor in given]
        dims = [tensor.dim() for tensor, origin in zip(given, origins, strict=True) if origin.inputs]
        if any(origin.selected for origin in origins):
            raise ValueError("rows that the values of the inputs pick cannot be told apart")
        if dims:
            rule = RULES.get(func)
            weight = None if rule is None else rule.bind(args, kwargs).weight
            mine = [tensor for tensor in shared if tensor is not weight or tensor not in self._leaves]
            table = {t: tie(t, self._for_each(t, max(dims))) for t in mine}
            result = run(func, _replaced(args, table), _replaced(kwargs, table))
            self._origins.record(func, args, kwargs, result)
            return result, False
        result = run(func, _replaced(args, self._leaves), _replaced(kwargs, self._leaves))
        self._origins.record(func, args, kwargs, result)
        if func in _EXPANSIONS and self._is_for_samples(shared[0], result):
            result = tie(shared[0], result.detach())
            self.note_own(result)
        return result, True

    def note_own(self, tensor: Tensor) -> None:
        """Notes that each sample has its own rows in a tensor."""
        self._origins.note(tensor, Origin(inputs=True))

    def carry_on(self, shared: Tensor, names: Collection[str], deliver: Deliver, grad: Tensor) -> None:
        """Gives the gradients [N, ...] of the samples in the parameters, from those in a shared tensor."""
        leaves = [self._by_name[name] for name in names]
        with torch.autocast(grad.device.type, enabled=False):
            gradients = torch.autograd.grad(
                self._leaves.get(shared, shared),
                leaves,
                grad.reshape(self._samples, *shared.shape).to(shared.dtype),
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=True,
            )
        for name, leaf, gradient in zip(names, leaves, gradients, strict=True):
            deliver(name, leaf.new_zeros(self._samples, *leaf.shape) if gradient is None else gradient)

    def _for_each(self, shared: Tensor, dim: int) -> Tensor:
        """A shared tensor once for each sample, to be used with a tensor [N, ...] of so many dimensions."""
        one = shared if shared.dim() == dim else shared[(None,) * (dim - shared.dim())]
        if one.dim() != dim or one.shape[0] != 1:
            raise ValueError(f"a tensor of shape {tuple(shared.shape)} is not the same for all samples")
        return one.detach().expand(self._samples, *one.shape[1:])

    def _is_for_samples(self, shared: Tensor, result: Tensor) -> bool:
        if self._expansions is None:
            own, n = shared.shape, self._samples
            found = result.shape in {(n, *own), *([(n * own[0], *own[1:])] if own else [])}
        else:
            if len(self.expanded) == len(self._expansions):
                raise control_flow_error(layer_name(min(self.sources(shared))))
            found = self._expansions[len(self.expanded)]
        self.expanded.append(found)
        return found


def _replaced(value: Any, table: Mapping[Tensor, Tensor]) -> Any:
    """Nested arguments with other tensors in the place of some."""
    if isinstance(value, Tensor):
        return table.get(value, value)
    if isinstance(value, dict):
        return {name: _replaced(part, table) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_replaced(part, table) for part in value)
    return value
