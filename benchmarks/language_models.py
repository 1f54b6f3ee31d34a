"""Language models of known sizes with random weights, and batches of random tokens, for the other benchmarks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from t2v_lightning.functional.inputs import Inputs

LENGTH = 128
"""Tokens of a sequence."""


class Classifier(nn.Module):
    """An encoder, the mean over its tokens, and a head of three classes."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(width, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask[..., None].to(hidden)
        return self.head((hidden * kept).sum(1) / kept.sum(1))


class NextToken(nn.Module):
    """A causal language model as a function from tokens to logits [N, T, V]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


def bert_base(layers: int | None) -> nn.Module:
    from transformers import BertConfig, BertModel

    return Classifier(BertModel(BertConfig(num_hidden_layers=layers or 12), add_pooling_layer=False), 768)


def gpt2(layers: int | None) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return NextToken(GPT2LMHeadModel(GPT2Config(n_layer=layers or 12)))


def smollm2_135m(layers: int | None) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return NextToken(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=49152,
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=layers or 30,
                num_attention_heads=9,
                num_key_value_heads=3,
                max_position_embeddings=8192,
                tie_word_embeddings=True,
            )
        )
    )


MODELS: dict[str, Callable[[int | None], nn.Module]] = {
    "bert-base": bert_base,
    "gpt2": gpt2,
    "smollm2-135m": smollm2_135m,
}


def language_model(name: str, layers: int | None = None) -> nn.Module:
    """A model in eval mode, with fewer layers than it has where `layers` says so."""
    torch.manual_seed(0)
    return MODELS[name](layers).eval()


def likelihood_of(name: str) -> str:
    return "softmax" if name == "bert-base" else "next_token"


def tokens(batch: int) -> Inputs:
    return {
        "input_ids": torch.randint(1, 30_000, (batch, LENGTH)),
        "attention_mask": torch.ones(batch, LENGTH, dtype=torch.int64),
    }


def from_block(model: nn.Module, first: int) -> frozenset[str]:
    """Names of the parameters from transformer block number `first` on; all for 0."""

    def block(name: str) -> int | None:
        return next((int(part) for part in name.split(".") if part.isdigit()), None)

    blocks = {name: block(name) for name, _ in model.named_parameters()}
    return frozenset(
        name for name, number in blocks.items() if first == 0 or (number is not None and number >= first)
    )
