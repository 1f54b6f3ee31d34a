"""Per-sample gradients of a whole network: what the caller has switched on, and what a network may do inside."""

from typing import Any

import pytest
import torch
from oracles import relative_error
from small_networks import images, network
from small_probe import small_module
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.likelihood import cotangents, get_likelihood

LAYERS = ["0", "3"]


@pytest.mark.parametrize(
    "case", ["without gradients", "frozen", "images with gradients", "a result with gradients"]
)
def test_gradients_of_the_caller_do_not_matter(case: str) -> None:
    model, x = network(), images()
    expected = filterwise_fisher(model, x)
    if case == "frozen":
        model.requires_grad_(False)
    elif case == "images with gradients":
        x.requires_grad_()
    elif case == "a result with gradients":
        x = x * torch.ones((), dtype=torch.float64, requires_grad=True)
    with torch.set_grad_enabled(case != "without gradients"):
        got = filterwise_fisher(model, x)
    assert x.is_leaf is False or x.grad is None
    for layer in LAYERS:
        assert torch.equal(got[layer], expected[layer])
        assert not got[layer].requires_grad


def test_inference_mode_of_the_caller_does_not_matter() -> None:
    """A Trainer validates in it: made, called or both there, and on images made there."""
    model, x = small_module(), torch.randn(5, 1, 8, 8)

    def vectors(outputs: Tensor) -> Any:
        return cotangents(outputs, get_likelihood("softmax"), "exact")

    expected = PerSampleFisher(model, x)(x, vectors)
    assert expected.min() > 0
    with torch.inference_mode():
        made_inside = PerSampleFisher(model, x.clone())
        assert torch.equal(made_inside(x.clone(), vectors), expected)
        assert torch.equal(filterwise_fisher(model, x)["0"], expected.double().sum(0)[:4])
        model[0].weight *= 1.0  # so that the weights are arranged anew
        outside = PerSampleFisher(model, x)(x, vectors)
    assert torch.equal(made_inside(x, vectors), expected)
    assert torch.equal(outside, expected)
    assert not torch.is_inference_mode_enabled()


def test_something_else_with_gradients_inside_the_network_does_not_silence_it() -> None:
    """A tensor that is no parameter of the network but takes gradients, such as a learnt prompt kept outside."""
    prompt = torch.zeros(2, 6, 6, dtype=torch.float64)

    class Prompted(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x + prompt

    model, x = nn.Sequential(Prompted(), *network()), images()
    expected = filterwise_fisher(model, x)
    prompt.requires_grad_()
    got = filterwise_fisher(model, x)
    for layer, entries in expected.items():
        assert relative_error(got[layer], entries) < 1e-12
    assert prompt.grad is None


class Blocks(nn.Module):
    """Two layers and a head; `run` is how the first of them is called."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.how = how

    def forward(self, x: Tensor) -> Any:
        if self.how == "no_grad":
            with torch.no_grad():
                y = torch.tanh(self.first(x))
        elif self.how.startswith("checkpoint"):
            y = checkpoint(
                lambda x: torch.tanh(self.first(x)), x, use_reentrant=self.how.endswith("reentrant")
            )
        else:
            y = torch.tanh(self.first(x))
        return self.head(torch.tanh(self.second(y)))


@pytest.mark.parametrize("how", ["no_grad", "checkpoint", "checkpoint, reentrant"])
def test_layers_that_hide_their_gradients_are_an_error_and_never_zero(how: str) -> None:
    with pytest.raises(RuntimeError, match=r"without gradients.*no_grad|checkpointing"):
        filterwise_fisher(Blocks(how), torch.randn(3, 4))


def test_a_compiled_network_gives_what_the_plain_one_gives() -> None:
    model, x = Blocks("plain"), torch.randn(3, 4)
    compiled: Any = torch.compile(model, backend="eager")
    expected, got = filterwise_fisher(model, x), filterwise_fisher(compiled, x)
    assert list(got) == list(expected) == ["first", "second"]
    for layer in got:
        assert torch.equal(got[layer], expected[layer])


def test_a_compiled_part_gives_what_the_plain_one_gives_and_is_not_compiled_for_it() -> None:
    model, x, compiled = network(), images(), []

    def backend(graph: Any, example: Any) -> Any:
        compiled.append(graph)
        return graph

    expected = filterwise_fisher(model, x)
    model[0].compile(backend=backend)
    model[1].compile(backend=backend)
    got = filterwise_fisher(model, x)
    for layer in LAYERS:
        assert torch.equal(got[layer], expected[layer])
    assert compiled == []
    model(x)
    assert len(compiled) == 2


def test_layers_inside_vmap_are_measured() -> None:
    class EachAlone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor) -> Any:
            y = torch.vmap(lambda image: self.network[:4](image[None])[0])(x)
            return self.network[4:](y)

    model, x = EachAlone(), images()
    expected, got = filterwise_fisher(model.network, x), filterwise_fisher(model, x)
    for layer in LAYERS:
        assert relative_error(got[f"network.{layer}"], expected[layer]) < 1e-12


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_is_squared_in_float32(half: torch.dtype) -> None:
    model, x = network().to(half).float(), images().to(half).float()
    expected, got = filterwise_fisher(model, x), filterwise_fisher(model.to(half), x.to(half))
    for layer in LAYERS:
        assert relative_error(got[layer], expected[layer]) < 0.05


def test_an_input_changed_in_place_after_a_layer_read_it_is_an_error() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            y = torch.tanh(self.a(x))
            z = self.b(y)
            y.mul_(2)
            return self.head(z + y)

    with pytest.raises(RuntimeError, match=r"changed in place"):
        filterwise_fisher(Overwrites(), torch.randn(3, 4))


def test_parameters_changed_between_two_calls_count() -> None:
    """Nothing is kept from one call to the next."""
    model, x = network(), images()
    filterwise_fisher(model, x)
    with torch.no_grad():
        model[0].weight.mul_(1.5)
        model[1].running_var.mul_(2.0)
    fresh = network()
    fresh.load_state_dict(model.state_dict())
    for layer in LAYERS:
        assert torch.equal(filterwise_fisher(model, x)[layer], filterwise_fisher(fresh, x)[layer])


def test_a_network_that_takes_another_way_than_for_the_example_is_an_error() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            way = self.one if x.sum() > -1e3 else self.other
            result: Tensor = self.head(way(x).tanh())
            return result

    engine = PerSampleFisher(Branches().eval(), torch.randn(2, 4))
    with pytest.raises(RuntimeError, match="'one' ran a different number of times than in the tracing pass"):
        engine(torch.full((2, 4), -1e3), lambda outputs: [torch.ones_like(outputs)])
