"""Networks for texts as backbones of probes: from their outputs for tokens to one feature vector for each text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from t2v_lightning.functional import inputs
from t2v_lightning.functional.inputs import MASK
from t2v_lightning.probes.outputs import tensor_of
from t2v_lightning.probes.text_transform import SAMPLE, TextTransform

Pooling = Literal["mean", "cls", "last", "none"]

_TENSORS = ("logits", "last_hidden_state")
"""What may be taken from a dict of outputs."""


class TextBackbone(nn.Module):
    """One feature vector [N, P] for each text, from the outputs of a network at its tokens.

    Args:
        encoder: takes `input_ids` and `attention_mask` [N, L] and gives hidden states [N, L, P], as a tensor or as
            `last_hidden_state` of a model of `transformers`. One that gives [N, P] by itself is left to it.
        pooling: "mean" of the tokens of a text, "cls" for the first one, or "last", which alone has seen the whole
            text in a network that looks back only. "none" leaves a vector for each token, [N, L, P].
    """

    def __init__(self, encoder: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        check_pooling(pooling)
        self.encoder, self.pooling = encoder, pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **more: Tensor) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        found = self.encoder(input_ids=input_ids, attention_mask=mask, **more)
        hidden = tensor_of(found, _TENSORS, self.encoder)
        if self.pooling == "none" or hidden.dim() != 3:
            return hidden
        return pool(hidden, mask, self.pooling)


def text_backbone(
    network: nn.Module, tokenizer: Any, pooling: Pooling | None = None, max_length: int | None = None
) -> tuple[TextBackbone, TextTransform, int | None]:
    """A network for texts, the preparation of its inputs, and the number P of its features.

    Of a language model with its own output layer, which gives logits for every token, the layer is left out.

    Args:
        network: takes `input_ids` and `attention_mask`, and gives hidden states [N, L, P] or logits [N, K].
        tokenizer: its own.
        pooling: None for `default_pooling`.
        max_length: most tokens of a text; None for as many as the network takes.

    Returns:
        P is None for a network that gives logits [N, K], whose head has to be found.

    Raises:
        TypeError, ValueError: as for `TextTransform.of`, or the network gives something else.
    """
    transform = TextTransform.of(tokenizer, network, max_length)
    pooling = pooling or default_pooling(network)
    sample = {name: torch.stack([ids, ids]) for name, ids in transform(SAMPLE).items()}
    batch = inputs.to(sample, next(network.parameters(), torch.empty(0)).device)
    with torch.no_grad():
        output = network.eval()(**batch)
        hidden = tensor_of(output, _TENSORS, network)
        if isinstance(output, Mapping) and "logits" in output and hidden.dim() == 3:
            network = cast(nn.Module, getattr(network, "base_model", network))
            output = network(**batch)
            hidden = tensor_of(output, _TENSORS, network)
    if isinstance(output, Mapping) and isinstance(output.get("pooler_output"), Tensor) and hidden.dim() == 3:
        network.register_module("pooler", None)  # behind the hidden states, which do not need it
    if hidden.dim() not in (2, 3) or len(hidden) != 2:
        raise ValueError(
            f"{type(network).__name__} returns {list(hidden.shape)} for 2 texts of {batch[MASK].shape[1]} tokens; "
            "needed are hidden states [N, L, P] or logits [N, K]"
        )
    return TextBackbone(network, pooling), transform, hidden.shape[2] if hidden.dim() == 3 else None


def language_model(
    network: nn.Module, tokenizer: Any, max_length: int | None = None
) -> tuple[TextBackbone, TextTransform, nn.Linear]:
    """A language model as a backbone that gives a vector for each token, and its own output layer as the head.

    The layer may share its weight with the table of tokens, as it does in the model.

    Raises:
        ValueError: the network has no output layer, or changes what that gives.
    """
    transform = TextTransform.of(tokenizer, network, max_length)
    find: Any = getattr(network, "get_output_embeddings", lambda: None)
    head, base = find(), getattr(network, "base_model", network)
    if not isinstance(head, nn.Linear) or base is network:
        raise ValueError(
            f"pooling='none' is for a language model with its own output layer, such as one of AutoModelForCausalLM; "
            f"{type(network).__name__} has none: choose pooling 'mean', 'cls' or 'last'"
        )
    backbone = TextBackbone(base.eval(), "none")
    batch = inputs.to({name: ids[None] for name, ids in transform(SAMPLE).items()}, head.weight.device)
    with torch.no_grad():
        logits = tensor_of(network.eval()(**batch), ("logits",), network)
        if not torch.allclose(head(backbone(**batch)), logits, 1e-3, 1e-4):
            raise ValueError(
                f"the logits of {type(network).__name__} are not what its output layer gives, but changed afterwards; "
                "choose pooling 'last'"
            )
    return backbone, transform, head


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """The mean, the first or the last of the hidden states [N, L, P] where the mask [N, L] is 1: [N, P].

    >>> hidden, mask = torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]])
    >>> [pool(hidden, mask, how).item() for how in ("mean", "cls", "last")]
    [2.0, 1.0, 3.0]
    """
    counts = mask.to(hidden.dtype)
    number = counts.cumsum(1)  # of each token, from 1
    if pooling == "cls":
        counts = counts * (number == 1)
    elif pooling == "last":
        counts = counts * (number == number[:, -1:])
    weights = counts / counts.sum(1, keepdim=True)
    return (weights[:, None] @ hidden)[:, 0]


def check_pooling(pooling: str) -> None:
    """Raises ValueError unless `pooling` is one of its values."""
    if pooling not in get_args(Pooling):
        raise ValueError(
            f"unknown pooling {pooling!r}; allowed are {', '.join(map(repr, get_args(Pooling)))}"
        )


def default_pooling(model: nn.Module) -> Pooling:
    """What suits a network: "last" for a language model whose tokens see only those before them, else "mean"."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind is None:  # not one of transformers
        return "mean"
    from transformers.models.auto import modeling_auto as auto

    causal = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return "last" if causal and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES else "mean"
