"""Networks that write into their inputs, or keep what they compute from one pass to the next, against brute force."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import network_fisher, relative_error
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork
from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.engine.side_effects import SideEffects
from t2v_lightning.functional.noise.network import NoisyNetwork
from t2v_lightning.functional.noise.normal_table import NormalTable


class Writes(nn.Module):
    """Normalises in place, or has an in-place activation as its first layer; with a bare parameter."""

    def __init__(self, first: str) -> None:
        super().__init__()
        self.activation = {"silu": nn.SiLU(True), "hardswish": nn.Hardswish(True)}.get(first)
        self.unseen = first == "unseen"
        self.conv, self.gain, self.head = (
            nn.Conv2d(2, 4, 3),
            nn.Parameter(torch.randn(4, 1, 1)),
            nn.Linear(4, 3),
        )

    def forward(self, x: Tensor) -> Any:
        if self.unseen:
            x.data.sub_(0.4)  # leaves no trace in the version of x
        elif self.activation is None:
            x.sub_(0.4).div_(0.3)
        else:
            x = self.activation(x)
        return self.head(torch.tanh(self.conv(x) * self.gain).mean((2, 3)))


class Fresh(nn.Module):
    """A network that is given copies."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x.clone())


@pytest.mark.parametrize("first", ["normalise", "unseen", "silu", "hardswish"])
@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels last"]
)
def test_inputs_are_those_of_the_caller_in_every_pass_and_stay_so(layout: Any, first: str) -> None:
    model, x = Writes(first).double().eval(), torch.randn(3, 2, 6, 6).double().to(memory_format=layout)
    given, version = x.clone(), x._version
    expected = network_fisher(Fresh(model), x, ["network.conv.weight", "network.gain"])
    got = filterwise_fisher(model, x, include="all")
    assert relative_error(got["conv"], expected["network.conv.weight"]) < 1e-10
    assert relative_error(got["gain"], expected["network.gain"].flatten()) < 1e-10
    noisy = NoisyNetwork(model.requires_grad_(False), x, NormalTable(0).read)
    draws = torch.arange(3)
    assert torch.equal(noisy(x, draws), noisy(x, draws))
    probe = ProbeNetwork.from_module(model, input_size=(2, 6, 6))
    engine = PerSampleFisher(probe, x)
    torch.testing.assert_close(engine.features(probe.backbone)(x), probe.features(x.clone()))
    assert torch.equal(x, given)
    assert x._version == version


def test_inputs_are_not_copied_for_a_network_that_only_reads_them() -> None:
    seen: list[int] = []

    class Reads(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.data_ptr())
            return super().forward(x)

    model, x = Reads(3, 2), torch.randn(4, 3)
    effects = SideEffects(model, x)
    assert not effects.writes
    effects.call(model, x)
    assert seen[-1] == x.data_ptr()


def test_a_network_that_writes_into_some_inputs_and_not_into_others_is_refused() -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            x = x.div_(255) if bool(x.max() > 50) else x
            return self.head(torch.tanh(self.body(x)))

    x = torch.rand(3, 4)
    x[1] = 255
    with pytest.raises(RuntimeError, match=r"writes into its inputs for some samples.*x = x - mean"):
        filterwise_fisher(Scales(), x)


def in_dict(net: Any) -> Tensor:
    if "cpu" not in net.kept:
        net.kept["cpu"] = net.biases()
    return net.kept["cpu"]


def in_list(net: Any) -> Tensor:
    if not net.kept:
        net.kept.append(net.biases())
    return net.kept[0]


def in_tensor(net: Any) -> Tensor:
    if net.kept is None:
        net.kept = net.biases()
    return net.kept


def in_tuple(net: Any) -> Tensor:
    if net.kept is None:
        net.kept = ("biases", net.biases())
    return net.kept[1]


def in_new_attribute(net: Any) -> Tensor:
    if not hasattr(net, "made"):
        net.made = net.biases()
    return net.made


CACHES: dict[str, tuple[Callable[[], Any], Callable[[Any], Tensor]]] = {
    "dict": (dict, in_dict),
    "list": (list, in_list),
    "tensor": (lambda: None, in_tensor),
    "tuple": (lambda: None, in_tuple),
    "new attribute": (lambda: None, in_new_attribute),
}
"""What an attribute holds before the first pass, and how attention biases are read from it."""


class Biased(nn.Module):
    """Attention biases that are computed once in eval mode and kept, beside a table of constants."""

    def __init__(self, how: str) -> None:
        super().__init__()
        empty, self.read = CACHES[how]
        self.kept, self.table = empty(), {"scale": torch.tensor(0.5, dtype=torch.float64)}
        self.scores = nn.Parameter(torch.randn(4, 3))
        self.register_buffer("index", torch.tensor([[0, 1, 2, 0], [2, 1, 0, 0], [1, 1, 2, 0], [0, 2, 1, 1]]))
        self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def biases(self) -> Tensor:
        return self.scores.gather(1, self.index)

    def forward(self, x: Tensor) -> Any:
        self.last = torch.tanh(self.mix(x) * self.table["scale"])  # a record, no cache
        return self.head(self.last @ self.read(self).softmax(1))


@pytest.mark.parametrize("before", ["never ran", "ran", "ran with gradients", "probe"])
@pytest.mark.parametrize("how", CACHES)
def test_a_parameter_behind_a_cache_counts_as_used(how: str, before: str) -> None:
    model, x = Biased(how).double().eval(), torch.randn(3, 4, dtype=torch.float64)
    expected = network_fisher(copy.deepcopy(model), x, ["scores", "mix.weight"])
    if before.startswith("ran"):
        with torch.set_grad_enabled(before == "ran with gradients"):
            model(x)
    held = {name: value for name, value in vars(model).items() if name not in ("kept", "last")}
    kept, copied = model.kept, copy.copy(model.kept)
    network = ProbeNetwork.from_module(model, example=x[0]) if before == "probe" else model
    got = filterwise_fisher(network, x, include="all")
    assert list(got) == ["scores", "mix"]
    for name, values in expected.items():
        assert relative_error(got[name.removesuffix(".weight")], values) < 1e-10, name
    assert model.kept is kept
    if isinstance(kept, (dict, list)):
        assert kept == copied
    assert all(vars(model)[name] is value for name, value in held.items())


def test_a_probe_keeps_nothing_of_the_pass_that_found_its_head() -> None:
    model, x = Biased("dict").double().eval(), torch.randn(3, 4, dtype=torch.float64)
    probe = ProbeNetwork.from_module(model, example=x[0])
    assert probe.backbone.kept == {}
    assert not hasattr(probe.backbone, "last")


def test_a_cache_from_before_the_weights_changed_is_refused() -> None:
    model, x = Biased("tensor").double().eval(), torch.randn(3, 4, dtype=torch.float64)
    with torch.no_grad():
        model(x)
        model.scores += 1
    with pytest.raises(
        ValueError, match=r"'kept' of Biased holds tensors.*empty the attribute.*register_buffer"
    ):
        filterwise_fisher(model, x)


def test_a_cache_that_cannot_be_found_is_refused() -> None:
    class Hidden:
        biases: Any = None

    def in_object(net: Any) -> Tensor:
        if net.hidden.biases is None:
            net.hidden.biases = net.biases()
        return net.hidden.biases

    model, x = Biased("tensor").double().eval(), torch.randn(3, 4, dtype=torch.float64)
    model.hidden, model.read = Hidden(), in_object
    for network, name in (
        (ProbeNetwork.from_module(model, example=x[0]), "backbone.scores"),
        (model, "scores"),
    ):
        with pytest.raises(ValueError, match=f"first forward pass uses '{name}' and later ones do not"):
            filterwise_fisher(network, x)


def test_a_table_of_constants_is_no_cache() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = {"mean": torch.tensor(0.5, dtype=torch.float64)}
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.head(torch.tanh(self.body(x - self.table["mean"])))

    model, x = Scaled().double(), torch.randn(3, 4, dtype=torch.float64)
    expected = network_fisher(copy.deepcopy(model), x, ["body.weight"])["body.weight"]
    assert relative_error(filterwise_fisher(model, x)["body"], expected) < 1e-10
    assert list(model.table) == ["mean"]
