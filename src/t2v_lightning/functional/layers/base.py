"""What every layer type answers: which of its arguments is the weight, and its per-sample gradients."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

WeightKind = Literal["weights", "norm"]


@dataclass(frozen=True)
class Call:
    """One use of a weight in a forward pass: output = layer(input, weight, **options)."""

    input: Tensor
    weight: Tensor
    options: dict[str, Any] = field(default_factory=dict)


class LayerRule(ABC):
    """Closed-form per-sample gradients of one type of layer.

    The first dimension of input and output gradient is N * m, where the m consecutive rows of a sample (windows
    of an attention layer, say) share the weight, so their gradients add up.
    """

    functions: ClassVar[tuple[Callable[..., Any], ...]]
    arguments: ClassVar[Sequence[str]]
    kind: ClassVar[WeightKind] = "weights"

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
        """Names the arguments of a call to one of `functions`."""
        bound = dict(zip(self.arguments, args, strict=False)) | kwargs
        return Call(bound.pop("input"), bound.pop("weight", None), bound)

    def filter_dim(self, call: Call) -> int:
        """The dimension of the weight whose indices are the filters."""
        return 0

    @abstractmethod
    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        """Gradient of every row in the weight: [N * m, *weight.shape] from output gradients [N * m, ...]."""

    def squares(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        """Squared per-sample gradients, averaged within each filter: [N, filters]."""
        return filter_means(self.per_sample(call, grad, samples), self.filter_dim(call))

    def per_sample(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        """Gradient of every sample in the weight: [N, *weight.shape]."""
        rows = self.gradients(call, grad)
        return rows.unflatten(0, (samples, -1)).sum(1) if len(rows) != samples else rows


def filter_means(gradients: Tensor, filter_dim: int) -> Tensor:
    """Mean square of each filter: [N, *weight.shape] -> [N, filters]; a scalar weight is one filter."""
    if gradients.dim() < 2:
        gradients = gradients[:, None]
    return (
        gradients.movedim(filter_dim + 1, 1).flatten(2).square().mean(2)
        if gradients.dim() > 2
        else gradients**2
    )
