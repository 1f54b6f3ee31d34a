"""What a network computes from parameters alone: gradients of each sample's own, where it meets the inputs."""

from collections.abc import Callable
from typing import Any

import pytest
import small_texts
import torch
from oracles import filter_means, parameter_fisher, relative_error
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher

DEBERTA = {
    "deberta": {},
    "deberta-v2": {},
    "deberta-v2, as DeBERTa-v3": {"share_att_key": True, "norm_rel_ebd": "layer_norm"},
}


class Classifier(nn.Module):
    """Of token ids [N, T], 0 where there is none."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(16, 3)
        self.double().eval()

    def forward(self, ids: Tensor) -> Any:
        hidden = self.backbone(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        return self.head(hidden[:, 0])


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("kind", DEBERTA)
def test_deberta(kind: str, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table of distances, and the layers that project it, by themselves or with the words."""
    name = kind.partition(",")[0]
    monkeypatch.setitem(small_texts.ENCODERS, name, small_texts.ENCODERS[name] | DEBERTA[kind])
    torch.manual_seed(0)
    model = Classifier(small_texts.model(name))
    x = torch.randint(5, 25, (samples, 6))
    x[-1, 4:] = 0
    engine = PerSampleFisher(model, x[:1], include="weights+norm")
    assert not engine.fallback
    got = filterwise_fisher(model, x, include="weights+norm")
    shared = engine.findings.shared
    assert shared is not None
    assert "backbone.encoder.rel_embeddings.weight" in shared.names
    rounding = 1e-6 if kind == "deberta" else 1e-10  # its normalisations compute in float32
    for weight in shared.names:
        expected = filter_means(parameter_fisher(model, x, model.get_parameter(weight)))
        assert relative_error(got[weight.removesuffix(".weight")], expected) < rounding, weight


Use = Callable[[Any, Tensor], Any]
USES: dict[str, Use] = {
    "repeated": lambda net, x: torch.bmm(x, net.table(net.rows).tanh()[None].repeat(len(x), 1, 1).mT),
    "repeated with its rows": lambda net, x: (
        torch.cat([net.table.weight.repeat(len(x), 1), x.flatten(0, 1)]).view(2, len(x), 4, 4).prod(0)
    ),
    "expanded": lambda net, x: torch.cat([net.table.weight.tanh().expand(len(x), 4, 4), x], 1),
    "a factor": lambda net, x: x * (1 + net.body(net.table.weight)),
    "a factor and a layer": lambda net, x: net.body(net.table.weight) * net.body(x),
    "changed in place": lambda net, x: x + net.table(net.rows).div_(3).add_(1).square(),
    "expanded for another reason": lambda net, x: x + net.table.weight[:1, :2].expand(3, 2).sum(0).repeat(2),
}


class Shared(nn.Module):
    def __init__(self, use: Use) -> None:
        super().__init__()
        self.table, self.body, self.head, self.use = nn.Embedding(4, 4), nn.Linear(4, 4), nn.Linear(4, 3), use
        self.register_buffer("rows", torch.tensor([2, 0, 2, 1]))
        self.double().eval()

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(self.use(self, x)).mean(1))


def check(model: nn.Module, x: Tensor) -> PerSampleFisher:
    engine = PerSampleFisher(model, x[:1])
    got = filterwise_fisher(model, x)
    for name in engine.layers:
        expected = filter_means(parameter_fisher(model, x, model.get_parameter(f"{name}.weight")))
        assert relative_error(got[name], expected) < 1e-10, name
    return engine


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("how", USES)
def test_uses(how: str, samples: int) -> None:
    torch.manual_seed(0)
    engine = check(Shared(USES[how]), torch.randn(samples, 4, 4, dtype=torch.float64))
    assert bool(engine.fallback) == (how == "expanded for another reason")


def test_an_expansion_for_another_reason_may_have_the_size_of_a_batch() -> None:
    """It is one in none: the trial has three samples, and this dimension two."""

    def use(net: Any, x: Tensor) -> Any:
        return x + net.table.weight[:1].expand(2, 4).cumsum(0).sum(0)

    torch.manual_seed(0)
    assert not check(Shared(use), torch.randn(2, 4, 4, dtype=torch.float64)).fallback


def test_a_trial_in_which_a_weight_does_nothing_proves_nothing() -> None:
    """Three heads, as many as the trial has samples, behind a gate that the first sample leaves closed."""

    def use(net: Any, x: Tensor) -> Any:
        y, gate = net.body(x), torch.relu(x.mean((1, 2)) - 5)[:, None, None]
        return y + gate * (y[:, None] * net.table.weight.tanh().expand(3, 4, 4)).mean(1)

    torch.manual_seed(0)
    x = torch.randn(3, 4, 4, dtype=torch.float64)
    x[1:] += 7
    assert "table.weight" in check(Shared(use), x).fallback


def test_what_the_shared_part_gets_wrong_falls_back() -> None:
    """A weight that is computed is not one of each sample."""
    torch.manual_seed(0)
    model = Shared(lambda net, x: nn.functional.linear(x, net.table.weight / net.table.weight.norm()))
    assert list(check(model, torch.randn(2, 4, 4, dtype=torch.float64)).fallback) == ["table.weight"]


def test_an_expansion_more_than_in_the_trial_is_refused() -> None:
    def use(net: Any, x: Tensor) -> Any:
        for _ in range(x.shape[1] // 4):
            x = x + net.table.weight.tanh()[:1].expand(len(x), 1, 4)
        return x

    engine = PerSampleFisher(Shared(use), torch.randn(1, 4, 4, dtype=torch.float64))
    assert engine.findings.shared is not None
    with pytest.raises(RuntimeError, match="different number of times"):
        engine(torch.randn(2, 8, 4, dtype=torch.float64), lambda f: [torch.ones_like(f)])


def test_rows_that_the_values_pick_are_not_taken_for_samples() -> None:
    """One row of each sample in the trial, and of other samples later."""
    torch.manual_seed(0)
    model = Shared(
        lambda net, x: torch.zeros_like(x).masked_scatter(
            (m := x == x.amax((1, 2), keepdim=True)), x[m] * net.table.weight.exp()[0, 0]
        )
    )
    assert list(check(model, torch.randn(2, 4, 4, dtype=torch.float64)).fallback) == ["table.weight"]
