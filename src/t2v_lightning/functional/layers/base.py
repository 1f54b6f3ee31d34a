"""The interface of a layer rule: which argument is the weight, its per-sample gradients, and its noise if any."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

WeightKind = Literal["weights", "norm"]


@dataclass(frozen=True)
class Call:
    """One use of a weight in a forward pass: `output = layer(input, weight, **options)`."""

    input: Tensor
    weight: Tensor
    options: dict[str, Any] = field(default_factory=dict)


class LayerRule(ABC):
    """Closed-form per-sample gradients of one type of layer.

    Attributes:
        functions: torch functions that such a layer calls.
        arguments: their positional arguments, in order.
        kind: "weights", or "norm" for affine weights of a normalisation; None where the name of a weight tells.
        operator: whether these are operators of tensors, which make a layer only where they take what is computed
            from the network's inputs.

    The first dimension of input and output gradient is N * m: the m consecutive rows of a sample (windows of an
    attention layer, say) share the weight, so their gradients add up.
    """

    functions: ClassVar[tuple[Callable[..., Any], ...]]
    arguments: ClassVar[Sequence[str]]
    kind: ClassVar[WeightKind | None] = "weights"
    operator: ClassVar[bool] = False

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
        """Names the arguments of a call to one of `functions`."""
        bound = dict(zip(self.arguments, args, strict=False)) | kwargs
        return Call(bound.pop("input"), bound.pop("weight", None), bound)

    def filter_dim(self, call: Call) -> int:
        """The dimension of the weight whose indices are the filters."""
        return 0

    def filter_groups(self, call: Call) -> int:
        """Groups of inputs that have filters of their own under the same index; 1 but for transposed convolutions."""
        return 1

    def channels(self, call: Call) -> tuple[int, int]:
        """Input channels of a filter, which `sketched` may add up, and groups of them; (1, 1) if there are none."""
        return 1, 1

    def sketched(self, call: Call, sums: Tensor) -> Call:
        """The call with r sums of its input channels in their place, and a weight of that shape.

        Args:
            call: of a layer with such channels.
            sums: [N, groups, r, channels], the coefficients; see `functional.layers.sketch`.
        """
        raise NotImplementedError

    @abstractmethod
    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        """Gradient of every row in the weight: `[N * m, *weight.shape]` from output gradients [N * m, ...]."""

    def squares(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        """Squared per-sample gradients, averaged within each filter: [N, filters]."""
        gradients = self.per_sample(call, grad, samples)
        return filter_means(gradients, self.filter_dim(call), self.filter_groups(call))

    def per_sample(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        """Gradient of every sample in the weight: `[N, *weight.shape]`."""
        rows = self.gradients(call, grad)
        return rows.unflatten(0, (samples, -1)).sum(1) if len(rows) != samples else rows


def filter_means(gradients: Tensor, filter_dim: int, groups: int = 1) -> Tensor:
    """Mean square of each filter: `[N, *weight.shape]` -> [N, filters]; a scalar weight is one filter.

    The weight `[C, F / groups, *kernel]` of a transposed convolution holds F filters, those of one group after
    the other.
    """
    if groups > 1:
        means = filter_means(gradients.unflatten(1, (groups, -1)).flatten(0, 1), filter_dim)
        return means.view(len(gradients), -1)
    if gradients.dim() < 2:
        gradients = gradients[:, None]
    return (
        gradients.movedim(filter_dim + 1, 1).flatten(2).square().mean(2)
        if gradients.dim() > 2
        else gradients**2
    )


class NoisyLayer(ABC):
    """Mixed into the rule of a layer type whose weights may bear Gaussian noise (see `functional.noise`).

    Attributes:
        std_first: whether the first of the `noise_factors` depends on `std`; otherwise the second does.
    """

    std_first: ClassVar[bool]

    @abstractmethod
    def noise_factors(self, call: Call, std: Tensor) -> tuple[Tensor, Tensor]:
        """The standard deviation of the noise in the layer's output, as two factors.

        For weights of variance v_f in filter f the output has variance v_f s, with a statistic s of the input that
        all filters (of a group) share; see `functional.layers.noise_statistic`.

        Args:
            call: the layer's input, weight and options.
            std: [filters], sqrt(v_f).

        Returns:
            Of shapes [..., L, 1] and [..., 1, T], one of them sqrt(s): their product [..., L, T] holds the standard
            deviations of the output's entries in their order.
        """
