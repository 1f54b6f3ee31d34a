"""Tiny language models of random weights in folders, their tokenizer, and texts whose words depend on their class."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may ask the network

WORDS = [
    "ant",
    "bee",
    "cat",
    "dog",
    "eel",
    "fox",
    "gnu",
    "hen",
    "ibis",
    "jay",
    "kid",
    "lamb",
    "mole",
    "newt",
    "owl",
    "pig",
    "quail",
    "ram",
    "seal",
    "toad",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LENGTH = 24
"""Most tokens of a text."""

_SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": LENGTH,
}
_ROBERTA = {"pad_token_id": 1, "max_position_embeddings": LENGTH + 2}
_DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_MODERN = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
_FEW_KEYS = {"num_key_value_heads": 1}

ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _SHAPE,
    "distilbert": {
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 24,
        "max_position_embeddings": LENGTH,
    },
    "roberta": _SHAPE | _ROBERTA,
    "albert": _SHAPE | {"embedding_size": 8},
    "deberta": _SHAPE | _DISENTANGLED,
    "deberta-v2": _SHAPE | _DISENTANGLED | {"position_buckets": 8},
    "modernbert": _SHAPE | _MODERN,
}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": LENGTH,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
    "llama": _SHAPE | _FEW_KEYS,
    "qwen2": _SHAPE | _FEW_KEYS | {"vocab_size": 32},  # transformers adds a token to its tokenizer
    "qwen3": _SHAPE | _FEW_KEYS | {"head_dim": 8},
}


def tokenizer(special: list[str] = SPECIAL, words: list[str] = WORDS) -> Any:
    """One token a word, between [CLS] and [SEP]."""
    import tokenizers
    import transformers

    ids = {word: number for number, word in enumerate([*special, *words])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    made: Any = transformers.PreTrainedTokenizerFast
    return made(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def config(kind: str) -> Any:
    from transformers import AutoConfig

    shape = {"vocab_size": len(SPECIAL) + len(WORDS), **(ENCODERS | DECODERS)[kind]}
    return AutoConfig.for_model(kind, **shape)


def model(kind: str, head: str = "AutoModel") -> Any:
    """With weights far from the initial ones, so that positions, words and heads all matter."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = getattr(transformers, head).from_config(config(kind)).eval()
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0, 0.3)
            elif name.endswith("weight"):
                nn.init.uniform_(parameter, 0.5, 1.5)
    return network


def save(network: Any, folder: Path, tokens: Any = None) -> Path:
    """As a user of transformers does."""
    import transformers

    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    network.save_pretrained(folder)
    (tokens or tokenizer()).save_pretrained(folder)
    return folder


def texts(n: int = 12, classes: int = 3) -> list[tuple[str, int]]:
    """1 to 9 words, of which each class favours others."""
    generator = torch.Generator().manual_seed(2)
    items = []
    for number in range(n):
        label = number % classes
        places = torch.randint(7, (1 + number * 5 % 9,), generator=generator) + 6 * label
        items.append((" ".join(WORDS[place] for place in places), label))
    return items


class Alone(nn.Module):
    """Runs each sample without any other and without padding; its input is the numbers of the samples."""

    def __init__(self, network: nn.Module, samples: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self.network, self.samples = network, samples

    def forward(self, numbers: Tensor) -> Tensor:
        alone = [self.samples[n] for n in numbers.tolist()]
        return torch.cat([self.network(**{k: x[None] for k, x in sample.items()}) for sample in alone])
