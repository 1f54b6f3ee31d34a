"""Weights that no closed form covers, by automatic differentiation, against brute force."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import filter_means, network_fisher, parameter_fisher, relative_error
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from t2v_lightning import ProbeNetwork
from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.phases.montecarlo import fisher_of_filters


class Bare(nn.Module):
    """Weights that no layer holds, of zero to two dimensions, and one that a layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.gain = nn.Parameter(torch.randn(4)), nn.Parameter(torch.tensor(1.3))
        self.matrix, self.body = nn.Parameter(torch.randn(4, 6)), nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(self.body(torch.tanh((self.gain * x + self.token) @ self.matrix))))


@pytest.mark.parametrize("sampling", ["exact", "sign"])
def test_bare_parameters_are_measured_when_all_is_asked_for(sampling: Any) -> None:
    model, x, weights = (
        Bare().double(),
        torch.randn(7, 4, dtype=torch.float64),
        torch.rand(7, dtype=torch.float64),
    )
    assert list(filterwise_fisher(model, x)) == ["matrix", "body"]
    names = ["token", "gain", "matrix", "body.weight"]
    got = filterwise_fisher(
        model, x, sampling, "softmax", weights, include="all", passes=1 if sampling == "exact" else 2
    )
    assert list(got) == ["token", "gain", "matrix", "body"]
    expected = network_fisher(
        model, x, names, weights=weights
    )  # two orthogonal signs are exact for three classes
    expected["matrix"] = filter_means(parameter_fisher(model, x, model.matrix, weights=weights), 1)
    for name in names:
        entries = expected[name].reshape(-1)
        assert relative_error(got[name.removesuffix(".weight")], entries) < 1e-10, name


def test_weights_without_closed_form_are_measured_all_the_same() -> None:
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mix, self.act = nn.Linear(4, 4), nn.Bilinear(4, 4, 5), nn.PReLU(5)
            self.norm = nn.utils.parametrizations.weight_norm(nn.Linear(5, 5))
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Any:
            x = torch.tanh(self.first(x))
            return self.head(torch.tanh(self.norm(self.act(self.mix(x, x)))))

    model, x = Bilinear().double(), torch.randn(5, 4, dtype=torch.float64)
    names = ["first.weight", "mix.weight", "norm.parametrizations.weight.original1"]
    expected = network_fisher(model, x, names)
    got = filterwise_fisher(model, x)
    for name in names:
        assert relative_error(got[name.removesuffix(".weight")], expected[name]) < 1e-10, name


def test_cross_attention_with_its_split_projection() -> None:
    """Query and memory differ, so the packed weight is used in parts: no closed form, the same numbers."""

    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries = nn.Parameter(torch.randn(2, 8))
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Any:
            y = self.attention(self.queries.expand(len(x), -1, -1), x, x)[0]
            return self.head(torch.tanh(y).flatten(1))

    model, x = Cross().double().eval(), torch.randn(3, 5, 8, dtype=torch.float64)
    names = ["attention.in_proj_weight", "attention.out_proj.weight"]
    expected = network_fisher(model, x, names)
    got = filterwise_fisher(model, x)
    assert list(got) == [name.removesuffix(".weight") for name in names]
    for name in names:
        assert relative_error(got[name.removesuffix(".weight")], expected[name]) < 1e-10, name


class Tanh(torch.autograd.Function):
    """As it was written before function transforms: without `setup_context`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (1 - ctx.saved_tensors[0].tanh() ** 2)


class Deforms(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.offsets, self.layer = nn.Conv2d(2, 18, 3, padding=1), DeformConv2d(2, 4, 3, padding=1)
        self.gain, self.kind, self.head = nn.Parameter(torch.randn(4, 1, 1)), kind, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        if self.kind == "function":
            y = F.conv2d(x, self.layer.weight, self.layer.bias) * self.gain.exp()
            return self.head(Tanh.apply(y).mean((2, 3)))
        return self.head(torch.tanh(self.layer(x, self.offsets(x)) * self.gain.exp()).mean((2, 3)))


@pytest.mark.parametrize("kind", ["function", "deformable convolution"])
def test_what_does_not_run_inside_vmap_goes_sample_by_sample(kind: str) -> None:
    model, x = Deforms(kind).double(), torch.randn(3, 2, 6, 6, dtype=torch.float64)
    names = ["gain", "layer.weight"] + ["offsets.weight"] * (kind != "function")
    expected, got = network_fisher(model, x, names), filterwise_fisher(model, x, include="all")
    assert len(got) == len(names)
    for name in names:
        assert relative_error(got[name.removesuffix(".weight")], expected[name].flatten()) < 1e-9, name
    assert PerSampleFisher(model, x, include="all").slow


def test_a_slow_way_is_said_once_with_its_reason_and_layers(caplog: pytest.LogCaptureFixture) -> None:
    probe = ProbeNetwork.from_module(Deforms("function"), input_size=(2, 6, 6))
    with caplog.at_level("INFO"):
        engine = fisher_of_filters(probe, 0, "all")
        engine(torch.randn(3, 2, 6, 6), lambda outputs: [outputs, outputs])
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert re.search(r"no closed form for gain, and .*input by input, which is slow.*setup_context", message)
    assert PerSampleFisher(Bare(), torch.randn(2, 4), include="all").slow is None


def test_a_complex_weight_is_refused_by_name() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filter, self.head = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64)), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.head((x.to(self.filter.dtype) @ self.filter).abs())

    with pytest.raises(ValueError, match=r"parameter 'filter' is complex.*torch\.view_as_real"):
        filterwise_fisher(Complex(), torch.randn(3, 4))
