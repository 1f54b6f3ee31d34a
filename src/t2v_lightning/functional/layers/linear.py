"""Linear layers, also on sequences."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.layers.base import Call, LayerRule, NoisyLayer
from t2v_lightning.functional.layers.matrix import matrix_squares
from t2v_lightning.functional.layers.noise_statistic import floored_square_sum


class LinearRule(LayerRule, NoisyLayer):
    """y_t = W a_t: the gradient of a sample is the sum over positions t of g_t a_t^T."""

    functions: ClassVar[tuple[Any, ...]] = (F.linear,)
    arguments: ClassVar[Sequence[str]] = ("input", "weight", "bias")

    def channels(self, call: Call) -> tuple[int, int]:
        return call.weight.shape[1], 1

    def sketched(self, call: Call, sums: Tensor) -> Call:
        rows = call.input.reshape(len(sums), -1, call.input.shape[-1])
        return Call((sums[:, 0] @ rows.mT).mT, call.weight[:, : sums.shape[2]], call.options)

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        a, g = (x.reshape(len(x), -1, x.shape[-1]) for x in (call.input, grad))
        return g.mT @ a

    def per_sample(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        a, g = (x.reshape(samples, -1, x.shape[-1]) for x in (call.input, grad))
        return super().per_sample(Call(a, call.weight, call.options), g, samples)

    def squares(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        a, g = (x.reshape(samples, -1, x.shape[-1]) for x in (call.input, grad))
        return matrix_squares(a, g)

    std_first: ClassVar = False

    def noise_factors(self, call: Call, std: Tensor) -> tuple[Tensor, Tensor]:
        s = floored_square_sum(call.input, -1).unsqueeze(-1)
        return s.sqrt(), std[None]
