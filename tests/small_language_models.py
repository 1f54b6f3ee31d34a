"""Small causal language models, written out as GPT-2 and Llama compute them; they map ids to logits [N, T, V]."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork

VOCABULARY = 7


class Conv1D(nn.Module):
    """A linear layer whose weight is stored [inputs, outputs]."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(inputs, outputs)),
            nn.Parameter(torch.randn(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight)
        return y.view(*x.shape[:-1], -1)


class RootMeanSquare(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def causal(mask: Tensor) -> Tensor:
    """Which positions [N, 1, T, T] a token attends to: real ones before it, and itself."""
    length = mask.shape[1]
    before = torch.ones(length, length, dtype=torch.bool).tril()
    return (before & (mask != 0)[:, None, None, :]) | torch.eye(length, dtype=torch.bool)


class GPT(nn.Module):
    """Token and position tables, one block of attention and perceptron; the head is tied to the token table."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(16, width)
        self.first, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = Conv1D(3 * width, width), Conv1D(width, width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.tokens.weight
        self.double().eval()

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places = (
            (mask.cumsum(1) - 1).clamp_min(0)
            if attention_mask is not None
            else torch.arange(mask.shape[1])[None]
        )
        x = self.tokens(input_ids) + self.places(places)
        q, k, v = (
            part.unflatten(2, (2, -1)).transpose(1, 2) for part in self.mixed(self.first(x)).chunk(3, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, causal(mask)).transpose(1, 2).flatten(2)
        return self.last(x + torch.tanh(self.out(y)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return self.head(self.hidden(input_ids, attention_mask))


class Backbone(GPT):
    """What a language model computes before its head."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return self.hidden(input_ids, attention_mask)


def probe() -> ProbeNetwork:
    """In two parts, of which the head's weight is the table of the backbone."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone = Backbone()
    head = backbone.head
    del backbone.head
    return ProbeNetwork(backbone, head, None, None, "gpt").double()


class Scaled(GPT):
    """The logits are scaled, so that the tied table is no head, and both of its uses count."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return 0.5 * super().forward(input_ids, attention_mask)


class Llama(nn.Module):
    """Rotary embeddings, two query heads for each key head, RMSNorm, a gated perceptron, a head of its own."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width, padding_idx=0)
        self.before, self.after = RootMeanSquare(width), nn.RMSNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, size, bias=False) for size in (8, 4, 4))
        self.o = nn.Linear(8, width, bias=False)
        self.gate, self.up, self.down = nn.Linear(width, 6), nn.Linear(width, 6), nn.Linear(6, width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.double().eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        x = self.tokens(input_ids)
        y = self.before(x)
        q, k, v = (layer(y).unflatten(2, (-1, 2)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        angle = (mask.cumsum(1) - 1)[:, None, :, None].double()  # one frequency for heads of two numbers
        q, k = (_turned(part, angle) for part in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, causal(mask), enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.after(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    """Rotary embedding of heads of two numbers."""
    return x * angle.cos() + torch.cat([-x[..., 1:], x[..., :1]], -1) * angle.sin()


def padded(sequences: list[Tensor], length: int, left: bool = False) -> dict[str, Tensor]:
    """Input ids [N, length] and their mask, padded with zeros."""
    ids, mask = (torch.zeros(len(sequences), length, dtype=torch.int64) for _ in range(2))
    for n, sequence in enumerate(sequences):
        where = slice(length - len(sequence), None) if left else slice(0, len(sequence))
        ids[n, where], mask[n, where] = sequence, 1
    return {"input_ids": ids, "attention_mask": mask}


def sequences() -> list[Tensor]:
    """Of several lengths, with tokens that occur twice."""
    return [torch.tensor(ids) for ids in ([1, 2, 3, 2, 1], [4, 6, 5], [3, 3], [5, 1, 2, 6])]
