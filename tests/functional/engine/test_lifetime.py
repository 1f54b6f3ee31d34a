"""What an engine held is freed as soon as nothing needs it, without garbage collection."""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small_networks import Call, images, network
from torch import Tensor, nn

from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.noise.network import NoisyNetwork
from t2v_lightning.functional.noise.normal_table import NormalTable


class Everything(nn.Module):
    """Folded and plain convolutions, a layer used twice, attention, changes in place, a weight without closed form."""

    def __init__(self, computed: bool = True) -> None:
        super().__init__()
        self.computed, self.features, self.twice = computed, network()[:5], nn.Linear(4, 4)
        self.gain = nn.Parameter(torch.ones(4))
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Any:
        y, gain = self.features(x).flatten(2).mT, self.gain.exp()
        y = nn.functional.linear(y, gain.diag()) if self.computed else y * gain
        y = self.twice(torch.relu_(self.twice(y)))
        return self.head(self.attention(y, y, y)[0].mean(1))


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def vectors(outputs: Tensor) -> Iterator[Tensor]:
    yield torch.ones_like(outputs)
    yield outputs


def fails(outputs: Tensor) -> Iterator[Tensor]:
    yield torch.ones_like(outputs)
    raise KeyError


def after(run: Callable[[nn.Module], object], computed: bool = True) -> list[Any]:
    """What is left of a network, and of its first weight, after something was done with it."""
    model = Everything(computed)
    left = [weakref.ref(model), weakref.ref(model.features[0].weight)]
    run(model)
    del model
    return [reference() for reference in left]


@pytest.mark.parametrize("computed", [True, False], ids=["by automatic differentiation", "shared part"])
def test_an_engine_that_was_called_lets_its_network_go(computed: bool) -> None:
    def run(model: nn.Module) -> None:
        unfolded = {name for name, _ in model.named_parameters() if not name.startswith("features.1")}
        engine = PerSampleFisher(model, images(), include="all", candidates=unfolded)
        assert engine.prepared.folds
        assert bool(engine.fallback) == computed
        assert engine(images(), vectors).shape == (5, engine.size)
        engine.features(model.features)(images())  # type: ignore[arg-type]

    assert after(run, computed) == [None, None]


def test_an_engine_whose_vectors_fail_lets_its_network_go() -> None:
    def run(model: nn.Module) -> None:
        with pytest.raises(KeyError):
            PerSampleFisher(model, images(), include="all")(images(), fails)

    assert after(run) == [None, None]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_network_that_fails_inside_the_engine_is_let_go(where: str) -> None:
    def run(model: nn.Module) -> None:
        def broken(y: Tensor) -> Tensor:
            if torch.is_grad_enabled() and where == "forward":
                raise KeyError
            if y.requires_grad:
                y.register_hook(lambda grad: {}["missing"])
            return y

        with pytest.raises(KeyError):
            PerSampleFisher(nn.Sequential(model.features, Call(broken), nn.Flatten(), nn.Linear(16, 3).double()),  # type: ignore[arg-type]
                            images())(images(), vectors)  # fmt: skip

    assert after(run) == [None, None]


def test_a_refused_network_is_let_go() -> None:
    def run(model: nn.Module) -> None:
        with pytest.raises(ValueError, match="train mode"):
            PerSampleFisher(model.train(), images())

    assert after(run) == [None, None]


@pytest.mark.parametrize("backward", [True, False])
def test_a_noisy_network_is_let_go(backward: bool) -> None:
    def run(model: nn.Module) -> None:
        noisy = NoisyNetwork(model.requires_grad_(False), images(), NormalTable(0).read)
        output = noisy(images(), torch.arange(5))
        if backward:
            output.sum().backward()

    assert after(run) == [None, None]


def test_a_noisy_layer_keeps_no_activation_for_its_noise() -> None:
    """Its numbers are drawn again in the backward pass, for which the shape of the output is enough."""
    outputs: list[Any] = []

    def remember(y: Tensor) -> Tensor:
        outputs.append(weakref.ref(y))
        return y * 1

    layers: list[nn.Module] = [nn.Linear(4, 5), Call(remember), nn.Flatten(), nn.Linear(5, 2)]
    model = nn.Sequential(*layers).requires_grad_(False)
    output = NoisyNetwork(model, torch.randn(3, 4), NormalTable(0).read)(torch.randn(3, 4), torch.arange(3))
    assert output.requires_grad
    assert outputs[-1]() is None
