"""Networks for texts, of transformers or of one's own, with a tokenizer as probes."""

from typing import Any

import pytest
import torch
from small_texts import model, tokenizer
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork
from t2v_lightning.probes.text_network import pool
from t2v_lightning.probes.text_transform import TextTransform

transformers = pytest.importorskip("transformers")


def batch_of(probe: ProbeNetwork, text: Any = "ant bee cat") -> dict[str, Tensor]:
    return {name: torch.stack([ids, ids]) for name, ids in probe.transform(text).items()}


class States(nn.Module):
    """Hidden states of tokens that do not look at each other."""

    def __init__(self, rows: int = 25) -> None:
        super().__init__()
        self.table, self.body = nn.Embedding(rows, 6), nn.Linear(6, 7)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return torch.tanh(self.body(self.table(input_ids)))


class Classifier(States):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(7, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.head(pool(super().forward(input_ids, attention_mask), attention_mask, "mean"))


class Flat(States):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.table(input_ids)[:, :, 0]


def of(module: nn.Module, **options: Any) -> ProbeNetwork:
    return ProbeNetwork.from_module(module, tokenizer=tokenizer(), **{"max_length": 8, **options})


def test_hidden_states_of_any_module_are_pooled_before_a_new_head() -> None:
    module = States()
    state = torch.get_rng_state()
    probe = of(module, pooling="last")
    assert torch.equal(torch.get_rng_state(), state)
    batch = batch_of(probe)
    torch.testing.assert_close(probe.features(batch), module(**batch)[:, -1])
    assert (probe.name, probe.feature_size, probe.num_classes, probe.input_size) == ("States", 7, 2, None)
    assert probe.stages == ("encoder.table", "encoder.body")
    assert probe.backbone.encoder is not module


def test_a_classifier_keeps_its_head() -> None:
    module = Classifier()
    probe = of(module)
    batch = batch_of(probe)
    torch.testing.assert_close(probe(batch), module(**batch))
    assert torch.equal(probe.head.weight, module.head.weight)
    assert (probe.feature_size, probe.num_classes) == (7, 4)


def test_a_classifier_of_transformers_keeps_its_head() -> None:
    module = model("bert", "AutoModelForSequenceClassification")
    probe = of(module)
    batch = batch_of(probe)
    torch.testing.assert_close(probe(batch), module(**batch).logits)
    assert torch.equal(probe.head.weight, module.classifier.weight)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_language_model_loses_the_layer_that_predicts_tokens(kind: str) -> None:
    module = model(kind, "AutoModelForMaskedLM" if kind == "bert" else "AutoModelForCausalLM")
    probe = of(module)
    batch = batch_of(probe)
    hidden = module.base_model(**batch).last_hidden_state
    torch.testing.assert_close(probe.features(batch), hidden.mean(1) if kind == "bert" else hidden[:, -1])
    assert not [name for name, _ in probe.backbone.named_parameters() if "cls" in name or "lm_head" in name]


def test_a_layer_behind_the_hidden_states_is_left_out() -> None:
    module = model("bert")
    assert not [name for name, _ in of(module).backbone.named_parameters() if "pooler" in name]
    assert module.pooler is not None


def test_what_padding_holds_does_not_count() -> None:
    hidden, mask = torch.randn(3, 5, 4), torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]])
    expected = {
        "mean": [hidden[0, :3].mean(0), hidden[1, 2:4].mean(0), hidden[2, 4]],
        "cls": [hidden[0, 0], hidden[1, 2], hidden[2, 4]],
        "last": [hidden[0, 2], hidden[1, 3], hidden[2, 4]],
    }
    for how, rows in expected.items():
        torch.testing.assert_close(pool(hidden, mask, how), torch.stack(rows))  # type: ignore[arg-type]
        torch.testing.assert_close(pool(hidden, mask.bool(), how), torch.stack(rows))  # type: ignore[arg-type]


def test_the_words_of_a_pair_and_the_names_that_the_network_takes() -> None:
    probe = of(model("bert"), max_length=None)
    assert probe.transform(("ant", "bee cat"))["input_ids"].tolist() == [2, 5, 3, 6, 7, 3]
    tokens = tokenizer()
    tokens.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    with_types = ProbeNetwork.from_module(model("bert"), tokenizer=tokens)
    assert with_types.transform(("ant", "bee cat"))["token_type_ids"].tolist() == [0, 0, 0, 1, 1, 1]
    without = ProbeNetwork.from_module(States(), tokenizer=tokens, max_length=8)
    assert set(without.transform(("ant", "bee cat"))) == {"input_ids", "attention_mask"}


def test_the_text_of_a_transform_tells_tokenizers_apart() -> None:
    one, same, other = (
        repr(TextTransform(tokens, 8))
        for tokens in (tokenizer(), tokenizer(), tokenizer(words=["ant", "bee"]))
    )
    assert one == same != other
    assert "vocabulary of 25" in one


# --- what does not fit ---------------------------------------------------------------------------------------


def test_a_tokenizer_of_another_vocabulary() -> None:
    larger = tokenizer(words=[f"w{n}" for n in range(40)])
    with pytest.raises(
        ValueError, match=r"of another vocabulary than the network \(BertModel\): it has 45 tokens"
    ):
        ProbeNetwork.from_module(model("bert"), tokenizer=larger)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            tokenizer().backend_tokenizer,
            r"the tokenizer is a Tokenizer; .*PreTrainedTokenizerFast\(tokenizer_object",
        ),
        ("bert-base-uncased", "the tokenizer is a str; it must be one of transformers"),
    ],
    ids=["backend", "name"],
)
def test_things_that_are_no_tokenizer(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ProbeNetwork.from_module(model("bert"), tokenizer=given)


def test_networks_that_do_not_take_tokens_or_have_no_features() -> None:
    with pytest.raises(
        TypeError, match="the network takes input; a network for texts takes input_ids and attention"
    ):
        of(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="has no final Linear head"):
        of(Flat())
    with pytest.raises(ValueError, match="pass max_length"):
        of(States(), max_length=None)
    with pytest.raises(
        ValueError, match="pooling and max_length are for networks that take texts; pass their token"
    ):
        ProbeNetwork.from_module(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), input_size=2, pooling="mean")
