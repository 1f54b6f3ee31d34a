"""Linear layers, also on sequences."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.layers.base import Call, LayerRule
from t2v_lightning.functional.layers.matrix import matrix_squares


class LinearRule(LayerRule):
    """y_t = W a_t: the gradient of a sample is the sum over positions t of g_t a_t^T."""

    functions: ClassVar = (F.linear,)
    arguments: ClassVar = ("input", "weight", "bias")

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        a, g = (x.reshape(len(x), -1, x.shape[-1]) for x in (call.input, grad))
        return g.mT @ a

    def squares(self, call: Call, grad: Tensor, samples: int) -> Tensor:
        a, g = (x.reshape(samples, -1, x.shape[-1]) for x in (call.input, grad))
        return matrix_squares(a, g)
