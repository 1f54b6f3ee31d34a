"""What is computed on a GPU, computed on a CPU: the same numbers."""

import pytest
import torch
from oracles import relative_error
from small_networks import Flat, check
from test_layers import CONVOLUTIONS
from torch import nn

from t2v_lightning import get_probe
from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.layers import cost_model


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_model, "runs_on_cpu", lambda device: False)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("gram", [0.0, float("inf")], ids=["direct", "Gram"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str, gram: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_model, "GRAM_ADVANTAGE", gram)
    kind, options, shape = CONVOLUTIONS[case]
    x = torch.randn(3, *shape, dtype=torch.float64)
    check(Flat(kind(4, 8, **options), nn.Tanh(), x=x), x)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_no_loop_over_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    backward = torch.ops.aten.convolution_backward

    def counted(*arguments: object) -> object:
        calls.append(arguments)
        return backward(*arguments)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", counted)
    monkeypatch.setattr(cost_model, "GRAM_ADVANTAGE", 0.0)
    model = nn.Sequential(nn.Conv2d(30, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    filterwise_fisher(model, torch.randn(7, 30, 9, 9))
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouped and depthwise convolutions, strides and patches as they occur."""
    probe = get_probe(name, num_classes=2, weights=None, input_size=48).double()
    x = torch.randn(3, *probe.input_size, dtype=torch.float64)
    expected = filterwise_fisher(probe, x)
    monkeypatch.setattr(cost_model, "runs_on_cpu", lambda device: False)
    for layer, entries in filterwise_fisher(probe, x).items():
        assert relative_error(entries, expected[layer]) < 1e-7, layer
