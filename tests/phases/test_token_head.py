"""Output layers of language models that are fitted further, against loops over tokens in float64."""

from typing import Any

import pytest
import torch
from small_language_models import VOCABULARY, padded, sequences
from torch import Tensor, nn

from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.functional.likelihood.next_token import next_tokens
from t2v_lightning.phases import HeadOptions
from t2v_lightning.phases.token_head import TokenProblem, TokenStore

WIDTH = 3
WEIGHTS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def problem(name: str = "next_token", bias: bool = True, budget: float | None = None) -> TokenProblem:
    generator = torch.Generator().manual_seed(0)
    x = padded(sequences(), 6)
    hidden = torch.randn(4, 6, WIDTH, dtype=torch.float64, generator=generator)
    head = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=torch.float64)
    for parameter in head.parameters():
        nn.init.normal_(parameter, generator=generator)
    store = TokenStore(budget)
    for rows in ([2, 0], [1, 3]):  # in any order
        store.add(torch.tensor(rows), hidden[rows], next_tokens(x)[rows])
    return TokenProblem(head, store, WEIGHTS, get_likelihood(name), torch.device("cpu"))  # type: ignore[arg-type]


def by_hand(found: TokenProblem, rows: list[int], weights: Tensor, name: str) -> Tensor:
    """The loss, one token after the other."""
    total = torch.zeros((), dtype=torch.float64)
    for n, weight in zip(rows, weights, strict=True):
        losses = [
            -found.head(found.hidden[t : t + 1]).log_softmax(1)[0, found.tokens[t]]
            for t in range(found.starts[n], found.starts[n] + found.lengths[n])
        ]
        total = total + weight * sum(losses) / (len(losses) if name == "next_token" else 1)
    return total


@pytest.mark.parametrize("name", ["next_token", "next_token_sum"])
def test_the_bias_is_optimal(name: str) -> None:
    found, penalty = problem(name), 0.01
    before = found.head.weight.clone()
    found.fit(HeadOptions("bias", weight_decay=penalty), lambda *_: WEIGHTS, 0, lambda *_: None)
    assert torch.equal(found.head.weight, before)
    bias = found.head.bias.requires_grad_()
    loss = by_hand(found, [0, 1, 2, 3], WEIGHTS, name) + penalty / 2 * bias.square().sum()
    (gradient,) = torch.autograd.grad(loss, bias)
    assert float(gradient.abs().max()) < 3e-5
    assert float(found.measured()[0]) == pytest.approx(loss.item() - penalty / 2 * bias.square().sum().item())


@pytest.mark.parametrize("name", ["next_token", "next_token_sum"])
@pytest.mark.parametrize("bias", [True, False])
def test_adam_takes_the_steps_of_a_plain_loop(name: str, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t2v_lightning.phases.token_head._LOGITS", 3 * VOCABULARY)
    drawn = torch.tensor([3, 0, 2, 2, 1])
    options = HeadOptions("adam", lr=0.1, weight_decay=0.1, epochs=2, num_samples=5, batch_size=2)
    found, plain = problem(name, bias), problem(name, bias)
    found.fit(options, lambda *_: drawn, 0, lambda *_: None)
    optimizer: Any = torch.optim.Adam(plain.head.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        for batch in ([3, 0], [2, 2], [1]):
            optimizer.zero_grad()
            by_hand(plain, batch, torch.full((len(batch),), 1 / len(batch)), name).backward()
            optimizer.step()
    assert torch.allclose(found.head.weight, plain.head.weight)
    if bias:
        assert torch.allclose(found.head.bias, plain.head.bias)


@pytest.mark.parametrize("budget", [0, 100])
@pytest.mark.parametrize("method", ["bias", "adam"])
def test_states_in_files_fit_the_same_head_to_the_last_digit(
    method: Any, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for limit, part in ((None, 2**24), (budget, 5 * WIDTH * 8)):  # sequences lie across parts of five rows
        monkeypatch.setattr("t2v_lightning.phases.feature_store._FIRST_PART", part)
        monkeypatch.setattr("t2v_lightning.phases.feature_store._LARGEST_PART", part)
        found.append(own := problem(budget=limit))
        assert own.hidden.is_mapped is (limit is not None)
        options = HeadOptions(method, lr=0.1, epochs=2, num_samples=4, batch_size=2)
        own.fit(options, lambda *_: torch.tensor([3, 0, 2, 1]), 0, lambda *_: None)
    assert torch.equal(found[0].head.weight, found[1].head.weight)
    assert torch.equal(found[0].head.bias, found[1].head.bias)
    assert torch.equal(found[0].measured(), found[1].measured())


def test_a_store_is_made_again_from_its_state() -> None:
    store, other = TokenStore(), TokenStore(budget=0)
    targets = torch.tensor([[1, 2, -100], [-100, -100, -100], [3, 4, 5]])
    store.add(torch.tensor([2, 0, 1]), torch.rand(3, 3, WIDTH), targets)
    other.load_state(store.state())
    assert list(other.tokens) == [2, 0, 1]
    assert [tokens.tolist() for tokens in other.tokens.values()] == [[1, 2], [], [3, 4, 5]]
    assert torch.equal(other.hidden[:], store.hidden[:])


def test_a_sequence_that_was_not_seen_is_an_error() -> None:
    store = TokenStore()
    store.add(torch.tensor([1]), torch.zeros(1, 3, WIDTH), torch.tensor([[1, 2, -100]]))
    kind, cpu = get_likelihood("next_token"), torch.device("cpu")
    with pytest.raises(RuntimeError, match="1 of 2 sequences were seen"):
        TokenProblem(nn.Linear(WIDTH, 9), store, WEIGHTS[:2], kind, cpu)
    for positions in ([0], [1]):
        store.add(torch.tensor(positions), torch.zeros(1, 3, WIDTH), torch.tensor([[1, 2, -100]]))
    with pytest.raises(RuntimeError, match="or some of them twice"):
        TokenProblem(nn.Linear(WIDTH, 9), store, WEIGHTS[:2], kind, cpu)


def test_a_sequence_without_a_token_to_predict_is_named() -> None:
    store = TokenStore()
    store.add(torch.arange(2), torch.zeros(2, 3, WIDTH), torch.tensor([[1, 2, -100], [-100, -100, -100]]))
    with pytest.raises(ValueError, match="sequence 1 has no token to predict"):
        TokenProblem(
            nn.Linear(WIDTH, 9), store, WEIGHTS[:2], get_likelihood("next_token"), torch.device("cpu")
        )
