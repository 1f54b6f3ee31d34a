"""The estimator of the public forks, written from what they do, with each of its faults by itself.

They square the gradient of the mean loss of several sequences, with dropout on and with targets drawn at every
position, padding too; they average squares over all but the first dimension of a weight, which of GPT-2's `Conv1D` is
the inputs; and they keep the table of tokens. The head is left as it is here, so that only the estimate differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2v_lightning import Embedding

PARTS = 8
"""Parts of a batch whose sums are kept, for the noise."""


@dataclass(frozen=True)
class Faults:
    """Which of the forks' ways are taken; none of them is an unbiased estimate of what `embed` estimates."""

    together: int = 1
    """Sequences whose mean gradient is squared."""
    dropout: bool = False
    padding: bool = False
    inputs: bool = False
    """Average squares of `Conv1D` over its outputs."""
    table: bool = False


VARIANTS = {
    "none": Faults(),
    "squares of means of 4": Faults(together=4),
    "dropout": Faults(dropout=True),
    "targets at padding": Faults(padding=True),
    "inputs of Conv1D": Faults(inputs=True),
    "token table": Faults(table=True),
    "all": Faults(together=4, dropout=True, padding=True, inputs=True, table=True),
}


def embed_published(
    model: Any, sequences: Sequence[dict[str, Tensor]], length: int, faults: Faults, seed: int
) -> Embedding:
    """An embedding of a batch of sequences, padded to `length` as the forks do."""
    weights = _weights(model, faults)
    model.train(faults.dropout)
    sums = torch.zeros(PARTS, sum(_size(module, weight, faults) for module, weight in weights.values()))
    counts = torch.zeros(PARTS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for number, start in enumerate(range(0, len(sequences), faults.together)):
            ids, mask = _padded(sequences[start : start + faults.together], length)
            logits = model(input_ids=ids, attention_mask=mask).logits
            drawn = torch.multinomial(logits.detach().flatten(0, 1).softmax(1), 1).view(ids.shape)
            counted = torch.ones_like(mask) if faults.padding else mask
            counted = torch.cat([counted[:, 1:] * counted[:, :-1], torch.zeros_like(mask[:, :1])], 1)
            losses = F.cross_entropy(logits.transpose(1, 2), drawn, reduction="none")
            # a sequence's own Fisher is that of the sum over its tokens, by their number
            scale = counted.sum(1).double().rsqrt() if faults.together == 1 else 1 / counted.sum(1).double()
            loss = ((losses * counted).sum(1) * scale).mean()
            gradients = torch.autograd.grad(loss, [weight for _, weight in weights.values()])
            entries = [
                _filters(gradient.square(), module, faults)
                for (module, _), gradient in zip(weights.values(), gradients, strict=True)
            ]
            part = number % PARTS
            sums[part] += torch.cat(entries)
            counts[part] += 1
    model.eval()
    fisher = sums.sum(0) / counts.sum()
    return Embedding(
        fisher, np.ones(len(fisher)), group_sums=sums.numpy(), group_weights=counts.double().numpy()
    )


def _weights(model: Any, faults: Faults) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    found = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        tied = weight is model.get_input_embeddings().weight
        if isinstance(weight, nn.Parameter) and weight.dim() == 2 and (faults.table or not tied):
            found.setdefault(id(weight), (name, module, weight))
    return {name: (module, weight) for name, module, weight in found.values()}


def _filters(squares: Tensor, module: nn.Module, faults: Faults) -> Tensor:
    transposed = type(module).__name__ == "Conv1D" and not faults.inputs
    return squares.mean(0) if transposed else squares.mean(1)


def _size(module: nn.Module, weight: Tensor, faults: Faults) -> int:
    return len(_filters(weight.detach(), module, faults))


def _padded(sequences: Sequence[dict[str, Tensor]], length: int) -> tuple[Tensor, Tensor]:
    ids, mask = (torch.zeros(len(sequences), length, dtype=torch.int64) for _ in range(2))
    for row, sequence in enumerate(sequences):
        size = len(sequence["input_ids"])
        ids[row, :size], mask[row, :size] = sequence["input_ids"], 1
    return ids, mask
