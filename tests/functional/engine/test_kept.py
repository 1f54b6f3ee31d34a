"""A network that has not changed is traced once; one that has gets its own numbers, however it was changed."""

import copy
import gc
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import network_fisher, relative_error
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork
from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine import kept, per_sample
from t2v_lightning.phases import fisher_of_filters


class Settings:
    """An object of settings, as many networks have one."""

    def __init__(self) -> None:
        self.twice = False


class Net(nn.Module):
    """Everything that findings may rest on: a fold, settings, containers, a function, a method, a class constant."""

    power = 1

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.more, self.head = nn.Linear(5, 5), nn.Linear(5, 3)
        self.settings, self.scales, self.activation = Settings(), {"gain": 1.0}, torch.tanh
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 1.5)
        assert self.norm.running_var is not None
        self.norm.running_var.uniform_(0.5, 1.5)
        self.double().eval()

    def between(self, y: Tensor) -> Tensor:
        return y

    def forward(self, x: Tensor) -> Any:
        y = self.activation(self.norm(self.conv(x))).mean((2, 3)) * self.scales["gain"]
        for _ in range(2 if self.settings.twice else self.power):
            y = torch.tanh(self.more(y))
        return self.head(self.between(y))


class Gated(Net):
    def between(self, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.more.weight)


ASKED = False


class Moody(Net):
    """Multiplies by a weight once more, for reasons that are neither its modules nor its plain settings."""

    moods = ("calm",)

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.switch = False, torch.tensor(0.0)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "hidden"}

    def between(self, y: Tensor) -> Tensor:
        moved = self.hidden or ASKED or self.moods[-1] != "calm" or bool(self.switch)
        return Gated.between(self, y) if moved else y  # type: ignore[arg-type]


def double_output(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    return 2 * output


def swish(x: Tensor) -> Tensor:
    return F.silu(x)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Every network that is traced from here on."""
    networks: list[nn.Module] = []
    inspect = per_sample.inspect_network
    kept._known.clear()  # other tests make networks of the same seed

    def watched(model: nn.Module, *rest: Any) -> Any:
        networks.append(model)
        return inspect(model, *rest)

    monkeypatch.setattr(per_sample, "inspect_network", watched)
    return networks


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 2, 5, 5, dtype=torch.float64)


def check(net: nn.Module, x: Tensor) -> None:
    names = ["conv.weight", "more.weight"]
    expected = network_fisher(net, x, names)
    got = filterwise_fisher(net, x)
    for name in names:
        assert relative_error(got[name.removesuffix(".weight")], expected[name]) < 1e-10, name


def test_a_network_that_has_not_changed_is_traced_once(traced: list[nn.Module]) -> None:
    net, x = Net(), images()
    first = filterwise_fisher(net, x)
    with torch.no_grad():
        net(x)
    second = filterwise_fisher(net, x)
    assert len(traced) == 1
    assert all(torch.equal(first[name], second[name]) for name in first)
    check(net, images(7))  # another number of samples
    assert len(traced) == 1
    filterwise_fisher(net, x[:, :, :4])
    filterwise_fisher(net, x, include="all")
    assert len(traced) == 3


def step(net: Net) -> None:
    net.conv.weight.square().sum().backward()
    torch.optim.SGD(net.parameters(), 0.1).step()


def new_head(net: Net) -> None:
    net.head = nn.Linear(5, 4).double()


def of_the_object(net: Net) -> None:
    net.between = types.MethodType(Gated.between, net)  # type: ignore[method-assign]


def other_class(net: Net) -> None:
    net.__class__ = Gated


CHANGES: dict[str, Callable[[Net], object]] = {
    "training step": step,
    "loaded state": lambda net: net.load_state_dict(Net().state_dict()),
    "weight through data": lambda net: net.conv.weight.data.mul_(2),
    "weight through a view of data": lambda net: net.conv.weight.data[1:3].add_(0.5),
    "weight through numpy": lambda net: net.conv.weight.detach().numpy().__imul__(2),
    "statistics through data": lambda net: net.norm.running_var.data.mul_(3),  # type: ignore[union-attr]
    "weight exchanged": lambda net: setattr(net.conv.weight, "data", torch.randn(5, 2, 3, 3).double()),
    "parameter exchanged": lambda net: setattr(net.norm, "weight", nn.Parameter(torch.rand(5).double())),
    "buffer exchanged": lambda net: setattr(net.norm, "running_mean", torch.rand(5).double()),
    "eps": lambda net: setattr(net.norm, "eps", 0.5),
    "stride": lambda net: setattr(net.conv, "stride", (2, 2)),
    "padding": lambda net: setattr(net.conv, "padding", (2, 1)),
    "head": new_head,
    "layer exchanged": lambda net: setattr(net, "norm", nn.GroupNorm(1, 5).double()),
    "layer taken out": lambda net: setattr(net, "norm", nn.Identity()),
    "hook": lambda net: net.conv.register_forward_hook(double_output),
    "hook without a name": lambda net: net.conv.register_forward_hook(lambda m, x, y: y.square()),
    "function": lambda net: setattr(net, "activation", swish),
    "object of settings": lambda net: setattr(net.settings, "twice", True),
    "dictionary": lambda net: net.scales.update(gain=3.0),
    "method of the object": of_the_object,
    "class": other_class,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_that_was_changed_gets_its_own_numbers(change: str) -> None:
    net, x = Net(), images()
    check(net, x)
    before = filterwise_fisher(net, x)
    CHANGES[change](net)
    check(net, x)
    assert relative_error(filterwise_fisher(net, x)["conv"], before["conv"]) > 1e-3


@pytest.mark.parametrize(("name", "value"), [("power", 3), ("between", Gated.between)])
def test_a_class_that_was_changed_gives_its_networks_other_numbers(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = Net(), images()
    before = filterwise_fisher(net, x)
    monkeypatch.setattr(Net, name, value)
    check(net, x)
    assert relative_error(filterwise_fisher(net, x)["more"], before["more"]) > 1e-3


MOODS: dict[str, Callable[[Moody, pytest.MonkeyPatch], object]] = {
    "attribute left out by pickle": lambda net, patch: setattr(net, "hidden", True),
    "entry of a tensor": lambda net, patch: net.switch.data.fill_(1),
    "tuple of the class": lambda net, patch: patch.setattr(Moody, "moods", ("calm", "loud")),
    "global": lambda net, patch: patch.setitem(globals(), "ASKED", True),
}


@pytest.mark.parametrize("mood", MOODS)
def test_what_code_decides_by_counts(mood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Moody(), images()
    for _ in range(2):
        before = filterwise_fisher(net, x)
    MOODS[mood](net, monkeypatch)
    check(net, x)
    assert relative_error(filterwise_fisher(net, x)["more"], before["more"]) > 1e-3


def test_a_method_of_the_same_name_counts() -> None:
    net, x = Net(), images()
    net.between = types.MethodType(Net.between, net)  # type: ignore[method-assign]
    before = filterwise_fisher(net, x)
    of_the_object(net)
    check(net, x)
    assert relative_error(filterwise_fisher(net, x)["more"], before["more"]) > 1e-3


def test_a_hook_on_all_modules_counts() -> None:
    net, x = Net(), images()
    before = filterwise_fisher(net, x)
    hook = nn.modules.module.register_module_forward_hook(double_output)
    try:
        check(net, x)
        assert relative_error(filterwise_fisher(net, x)["conv"], before["conv"]) > 1e-3
    finally:
        hook.remove()


def test_train_mode_is_an_error_also_of_a_network_that_is_known() -> None:
    net, x = Net(), images()
    filterwise_fisher(net, x)
    with pytest.raises(ValueError, match=r"'norm' \(BatchNorm2d\) is in train mode"):
        filterwise_fisher(net.train(), x)


def test_another_dtype_and_autocast_count(traced: list[nn.Module]) -> None:
    net, x = Net(), images()
    filterwise_fisher(net, x)
    single = filterwise_fisher(net.float(), x.float())
    expected = network_fisher(copy.deepcopy(net).double(), x, ["conv.weight"])["conv.weight"]
    assert relative_error(single["conv"], expected) < 1e-4
    with torch.autocast("cpu", torch.bfloat16):
        filterwise_fisher(net, x.float())
    assert len(traced) == 3


class Remembers(Net):
    """Keeps what it computes from a weight, as some attention layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Any = None

    def between(self, y: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = self.more.weight.square()
        return torch.tanh(y @ self.kept)


class Opens(Net):
    """Holds what pickle refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = iter(range(10))
        self.function = lambda x: x


class Large(Net):
    """Holds its data set."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytes(2**23)


@pytest.mark.parametrize("kind", [Remembers, Opens, Large])
def test_a_network_whose_state_cannot_be_told_is_traced_each_time(
    kind: type[Net], traced: list[nn.Module]
) -> None:
    net, x = kind(), images()
    first, second = filterwise_fisher(net, x), filterwise_fisher(net, x)
    assert len(traced) == 2
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", [Net, Opens, Remembers])
def test_a_network_that_is_known_is_freed_with_its_weights(kind: type[Net]) -> None:
    gc.collect()
    gc.disable()
    try:
        net = kind()
        filterwise_fisher(net, images())
        refs = [weakref.ref(net), weakref.ref(net.conv.weight), weakref.ref(net.norm)]
        del net
        assert [ref() for ref in refs] == [None] * 3
    finally:
        gc.enable()


def test_what_is_known_of_many_networks_is_forgotten_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST", 3)
    kept._known.clear()
    nets = [Net() for _ in range(5)]
    for net in nets:
        filterwise_fisher(net, images())
    assert len(kept._known) == 3


def test_a_probe_is_known_by_its_weights_whatever_its_head(traced: list[nn.Module]) -> None:
    probe = ProbeNetwork.from_module(Net(), input_size=(2, 5, 5))
    example = images(1)[0]
    first = fisher_of_filters(probe, 0, "weights", example)
    again = copy.deepcopy(probe)
    again.reset_head(7)
    second = fisher_of_filters(again, 0, "weights", example)
    assert len(traced) == 1
    assert first.layers == second.layers
    assert second.model is again
    again.backbone.get_parameter("conv.weight").data.mul_(2)
    third = fisher_of_filters(again, 0, "weights", example)
    assert len(traced) == 2
    x = images()
    expected = network_fisher(again, x, ["backbone.conv.weight"], "gaussian")["backbone.conv.weight"]
    values = third(x, lambda outputs: torch.eye(7).double().expand(len(x), 7, 7).unbind(1))
    assert relative_error(values.sum(0)[third.layers["conv"]], expected) < 1e-10


def test_what_a_probe_does_itself_counts(traced: list[nn.Module]) -> None:
    probe = ProbeNetwork.from_module(Net(), input_size=(2, 5, 5))
    example = images(1)[0]
    fisher_of_filters(probe, 0, "weights", example)
    probe.register_forward_hook(double_output)
    fisher_of_filters(probe, 0, "weights", example)
    assert len(traced) == 2
