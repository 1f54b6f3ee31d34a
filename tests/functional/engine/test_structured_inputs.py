"""Networks that take several tensors, as a tuple or a dict, against brute force in float64."""

from typing import Any

import pytest
import torch
from oracles import filter_means, network_fisher, relative_error, squared_gradients
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork
from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.inputs import call, take
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.functional.noise.network import NoisyNetwork
from t2v_lightning.functional.noise.normal_table import NormalTable


class Text(nn.Module):
    """Token embedding, masked attention, a layer on tokens, the mean over unmasked tokens, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.scale = nn.Embedding(9, 4), nn.Parameter(torch.randn(4))
        self.query, self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 3)
        self.double().eval()

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        tokens = self.table(ids)
        scores = (self.query(tokens) @ tokens.mT).masked_fill(~mask[:, None], -torch.inf)
        tokens = torch.tanh(self.body(scores.softmax(2) @ tokens * self.scale))
        kept = mask[:, :, None].to(tokens)
        return self.head((tokens * kept).sum(1) / kept.sum(1))


class Pair(nn.Module):
    """Two inputs of one shape, of which a layer sees the difference."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.both, self.head = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)
        self.gain = nn.Parameter(torch.randn(5))
        self.double().eval()

    def forward(self, a: Tensor, b: Tensor) -> Any:
        return self.head(torch.tanh(self.left(a) * self.gain) + torch.tanh(self.both(a - b)))


class Whole(nn.Module):
    """A network as the oracle takes it: `x` holds the numbers of the samples, of which it fetches the inputs."""

    def __init__(self, network: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.network, self.inputs = network, inputs

    def forward(self, x: Tensor) -> Any:
        return call(self.network, take(self.inputs, x))


def text() -> tuple[nn.Module, Any]:
    lengths = torch.tensor([5, 3, 4, 1])
    return Text(), {"ids": torch.randint(9, (4, 5)), "mask": torch.arange(5) < lengths[:, None]}


def pair() -> tuple[nn.Module, Any]:
    return Pair(), (torch.randn(4, 4).double(), torch.randn(4, 4).double())


NETWORKS: dict[str, Any] = {"text": text, "pair": pair}
MEASURED = {"text": ["scale", "table.weight", "query.weight", "body.weight"],
            "pair": ["gain", "left.weight", "both.weight"]}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_is_the_fisher_by_definition(name: str) -> None:
    model, x = NETWORKS[name]()
    weights = torch.linspace(0.5, 2.0, 4, dtype=torch.float64)
    names = [f"network.{parameter}" for parameter in MEASURED[name]]
    expected = network_fisher(Whole(model, x), torch.arange(4), names, weights=weights)
    got = filterwise_fisher(model, x, weights=weights, include="all")
    assert sorted(got) == sorted(parameter.removesuffix(".weight") for parameter in MEASURED[name])
    for parameter in MEASURED[name]:
        layer = parameter.removesuffix(".weight")
        assert relative_error(got[layer], expected[f"network.{parameter}"]) < 1e-10, layer


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sampling", ["sign", "categorical", "empirical"])
def test_every_sampling_mode_squares_the_gradients_of_its_vectors(sampling: Any, name: str) -> None:
    model, x = NETWORKS[name]()
    targets = torch.tensor([0, 2, 1, 1])
    generator = torch.Generator().manual_seed(3)
    got = filterwise_fisher(model, x, sampling, generator=generator, targets=targets, include="all")
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(3)))
    whole, index = Whole(model, x), torch.arange(4)
    outputs = whole(index).detach()
    (vector,) = cotangents(outputs, get_likelihood("softmax"), sampling, seed=seed, targets=targets)
    for parameter in MEASURED[name]:
        squares = squared_gradients(whole, index, model.get_parameter(parameter), vector).sum(0)
        layer = parameter.removesuffix(".weight")
        assert relative_error(got[layer], filter_means(squares)) < 1e-10, layer


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_and_factors_have_closed_forms(name: str) -> None:
    model, x = NETWORKS[name]()
    engine = PerSampleFisher(model, x, include="all")
    assert not engine.fallback


def test_a_mask_of_ones_stays_as_it_is_while_the_network_is_traced() -> None:
    """No sample of the data masks a token, and a token that is masked for one sample would hide it."""
    model, x = text()
    x["mask"] = torch.ones_like(x["mask"])
    whole, index = Whole(model, x), torch.arange(4)
    expected = network_fisher(whole, index, ["network.body.weight"])["network.body.weight"]
    assert relative_error(filterwise_fisher(model, x)["body"], expected) < 1e-10


@pytest.mark.parametrize("name", NETWORKS)
def test_noise_belongs_to_the_draw(name: str) -> None:
    model, x = NETWORKS[name]()
    network = NoisyNetwork(model.requires_grad_(False), x, NormalTable(0).read)
    assert list(network.noise.layers) == [n.removesuffix(".weight") for n in MEASURED[name][-2:]]
    draws = torch.tensor([5, 2, 5, 1])
    result = network(x, draws)
    alone = [network(take(x, slice(n, n + 1)), draws[n : n + 1]) for n in range(4)]
    torch.testing.assert_close(result, torch.cat(alone), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(result, call(model, x))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_probe_takes_what_its_backbone_takes(name: str) -> None:
    model, x = NETWORKS[name]()
    expected, head = call(model, x), model.head
    model.head = nn.Identity()
    probe = ProbeNetwork(model, head, None, lambda item: item, name)
    torch.testing.assert_close(probe(x), expected)
    torch.testing.assert_close(call(probe, x), expected)
    torch.testing.assert_close(probe.features(x), call(model, x))
    engine = PerSampleFisher(probe, x, prefix=probe.layer_prefix)
    assert list(engine.layers) == [n.removesuffix(".weight") for n in MEASURED[name][1:]]
    torch.testing.assert_close(engine.features(probe.backbone)(x), probe.features(x))


def test_samples_must_be_equally_many_and_at_least_one() -> None:
    model, x = text()
    with pytest.raises(ValueError, match=r"equally many samples; got \[2, 4\]"):
        filterwise_fisher(model, x | {"mask": x["mask"][:2]})
    with pytest.raises(ValueError, match="x is empty"):
        filterwise_fisher(model, take(x, slice(0, 0)))
    first, second = pair()[1]
    with pytest.raises(ValueError, match="NaN or infinite"):
        filterwise_fisher(Pair(), (first, second / 0))
