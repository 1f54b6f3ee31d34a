"""Language models of `transformers`, very small ones, against brute force in float64."""

from typing import Any

import pytest
import torch
from oracles import filter_means, network_fisher, relative_error, sequence_fishers
from small_language_models import padded, sequences
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {"vocab_size": 7, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = SIZES | {
    "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "tie_word_embeddings": True,
}  # fmt: skip
BERT = SIZES | {"hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2}
CAUSAL: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": SIZES | {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16},
    "LlamaForCausalLM": LLAMA,
    "Qwen3ForCausalLM": LLAMA,
}
ENCODERS: dict[str, dict[str, Any]] = {"BertModel": BERT, "AlbertModel": BERT | {"embedding_size": 4}}


def of(name: str, options: dict[str, Any], **more: Any) -> Any:
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**options), **more).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    return model


class Causal(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


class Classifier(nn.Module):
    """The mean over the tokens, and a head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, nn.Linear(8, 3).double()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.model(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return self.head((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def is_transposed(model: nn.Module, name: str) -> bool:
    """GPT-2's own kind of linear layer."""
    return type(model.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D"


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_models(name: str) -> None:
    model, x = Causal(of(name, CAUSAL[name])), padded(sequences(), 5)
    engine = PerSampleFisher(model, x, include="weights+norm")
    assert not engine.fallback
    assert "head" in engine.left_out.values()
    got = filterwise_fisher(model, x, likelihood="next_token", include="weights+norm")
    for layer, entries in got.items():
        weight = model.get_parameter(f"{layer}.weight")
        squares = sum(sequence_fishers(model, sequences(), weight), torch.zeros_like(weight))
        expected = filter_means(squares, int(is_transposed(model, f"{layer}.weight")))
        assert relative_error(entries, expected) < 1e-6, (
            layer
        )  # as these models normalise and rotate in float32


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name: str) -> None:
    """Without padding: BERT's own token types and positions are the same for all samples."""
    ids = torch.randint(1, 7, (3, 5))
    model = Classifier(of(name, ENCODERS[name], add_pooling_layer=False))
    engine = PerSampleFisher(model, ids, include="weights+norm")
    assert not engine.fallback
    got = filterwise_fisher(model, ids, include="weights+norm")
    names = [f"{layer}.weight" for layer in got]
    assert any("position" in n for n in names)
    expected = network_fisher(model, ids, names)
    for layer, entries in got.items():
        assert relative_error(entries, expected[f"{layer}.weight"]) < 1e-9, layer
