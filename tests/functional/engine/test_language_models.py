"""Language models under the likelihood of the next token, against brute force on sequences without padding."""

from typing import Any

import pytest
import torch
from oracles import filter_means, relative_error, sequence_fishers
from small_language_models import GPT, VOCABULARY, Conv1D, Llama, Scaled, padded, sequences
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.likelihood import cotangents, get_likelihood, next_tokens

MODELS: dict[str, type[nn.Module]] = {"GPT-2": GPT, "Llama": Llama, "tied": Scaled}


def expected_of(model: nn.Module, weights: Tensor | None = None) -> dict[str, Tensor]:
    """Filter means of all measured parameters; those of Conv1D have their filters in dimension 1."""
    columns = {m.weight for m in model.modules() if isinstance(m, Conv1D)}
    result = {}
    for name, parameter in model.named_parameters():
        left_out = (
            name.endswith("bias")
            or name.startswith("head")
            or (type(model) is GPT and name == "tokens.weight")
        )
        if not left_out:
            of_sequences = list(sequence_fishers(model, sequences(), parameter))
            total = sum(f * (1 if weights is None else weights[n]) for n, f in enumerate(of_sequences))
            result[name.removesuffix(".weight")] = filter_means(total, int(parameter in columns))
    return result


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_has_a_closed_form_and_its_exact_fisher(name: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name](), padded(sequences(), 5)
    weights = torch.linspace(0.5, 2.0, 4, dtype=torch.float64)
    assert not PerSampleFisher(model, x, include="weights+norm").fallback
    expected = expected_of(model, weights)
    got = filterwise_fisher(model, x, likelihood="next_token", weights=weights, include="weights+norm")
    assert got.keys() == expected.keys()
    for layer, entries in expected.items():
        assert relative_error(got[layer], entries) < 1e-10, layer


@pytest.mark.parametrize("sampling", ["exact", "sign", "categorical", "empirical"])
@pytest.mark.parametrize("name", MODELS)
def test_padding_batches_and_order_do_not_matter(name: str, sampling: Any) -> None:
    torch.manual_seed(0)
    model, likelihood = MODELS[name](), get_likelihood("next_token")

    def values(order: list[int], length: int, left: bool) -> Tensor:
        x, index = padded([sequences()[n] for n in order], length, left), torch.tensor(order)
        engine = PerSampleFisher(model, x, include="weights+norm")
        return engine(x, lambda f: cotangents(f, likelihood, sampling, index=index, targets=next_tokens(x)))

    whole = values([0, 1, 2, 3], 5, left=False)
    parts = torch.cat([values([2], 2, False), values([3, 0], 9, False), values([1], 6, True)])
    assert relative_error(parts, whole[[2, 3, 0, 1]]) < 1e-12


def test_the_sum_over_tokens_is_the_mean_times_their_number() -> None:
    model = GPT()
    for sequence in sequences():
        x = padded([sequence], 5)
        mean, total = (
            filterwise_fisher(model, x, likelihood=name)["mixed"] for name in ("next_token", "next_token_sum")
        )
        torch.testing.assert_close(total, mean * (len(sequence) - 1), rtol=1e-12, atol=0)


def test_a_tied_table_is_part_of_the_head() -> None:
    x = padded(sequences(), 5)
    assert PerSampleFisher(GPT(), x).left_out["tokens.weight"] == "head"
    assert "tokens" in PerSampleFisher(Scaled(), x).layers


def test_ids_without_a_mask_are_all_real() -> None:
    model, ids = GPT(), torch.randint(VOCABULARY, (3, 5))
    got = filterwise_fisher(model, ids, likelihood="next_token")
    expected = filterwise_fisher(model, padded(list(ids), 7), likelihood="next_token")
    for layer, entries in expected.items():
        if layer != "places":
            assert relative_error(got[layer], entries) < 1e-12
    assert relative_error(got["places"][:5], expected["places"][:5]) < 1e-12


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(2, 5), r"input ids, int64 \[N, T\]"),
        ({"ids": torch.ones(2, 5, dtype=torch.int64)}, r"input ids, int64 \[N, T\].*Pass targets"),
        (padded([torch.tensor([1, 2]), torch.tensor([3])], 3), r"sequence\(s\) \[1\].*no token to predict"),
    ],
    ids=["floats", "another name", "one token"],
)
def test_what_has_no_next_token_is_refused(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filterwise_fisher(GPT(), x, likelihood="next_token")


def test_the_likelihood_must_fit_the_outputs() -> None:
    x = padded(sequences(), 5)
    with pytest.raises(ValueError, match="likelihood='next_token'"):
        filterwise_fisher(GPT(), x)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"next_token takes outputs \[N, T, V\]"):
        filterwise_fisher(net, torch.rand(2, 3), likelihood="next_token", targets=torch.ones(2, 3).long())
