"""Embedding tables: a filter is a row of the table."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from t2v_lightning.functional.layers.base import Call, LayerRule


class EmbeddingRule(LayerRule):
    """y_t = W[i_t]: row v of a sample's gradient is the sum of g_t over the positions with i_t = v."""

    functions: ClassVar = (F.embedding,)
    arguments: ClassVar = (
        "input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse",
    )  # fmt: skip

    def gradients(self, call: Call, grad: Tensor) -> Tensor:
        index = call.input.reshape(len(call.input), -1, 1)
        g = grad.reshape(len(index), -1, grad.shape[-1])
        rows = g.new_zeros(len(index), *call.weight.shape)
        rows.scatter_add_(1, index.expand_as(g), g)
        padding = call.options.get("padding_idx")
        if padding is not None:
            rows[:, padding] = 0
        return rows
