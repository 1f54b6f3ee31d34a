"""Sketched squares: unbiased, with the variance that the formula gives, and a function of the image alone."""

from typing import Any

import pytest
import torch
from oracles import filter_dim, filter_means, squared_gradients
from small_networks import Flat, weight_names
from test_layers import CONVOLUTIONS
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.layers import RULES, Call, cost_model
from t2v_lightning.functional.layers.cost_model import sketch_columns
from t2v_lightning.functional.layers.sketch import Sketch

COPIES = 400


def network(*layers: nn.Module, x: Tensor) -> PerSampleFisher:
    return PerSampleFisher(Flat(*layers, x=x), x)


def ones(outputs: Tensor) -> list[Tensor]:
    return [torch.ones_like(outputs)]


@pytest.mark.parametrize("on_cpu", [True, False], ids=["CPU", "GPU"])
@pytest.mark.parametrize("case", [case for case in CONVOLUTIONS if "depthwise" not in case] + ["linear"])
def test_the_mean_over_many_signs_is_the_square(
    case: str, on_cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 copies of an image, each with signs of its own, against brute-force autograd."""
    monkeypatch.setattr(cost_model, "runs_on_cpu", lambda device: on_cpu)
    torch.manual_seed(0)
    if case == "linear":
        x, layers = torch.randn(1, 3, 6, dtype=torch.float64), [nn.Linear(6, 4)]
    else:
        kind, options, shape = CONVOLUTIONS[case]
        x = torch.randn(1, 8, *shape[1:], dtype=torch.float64)
        layers = [kind(8, 4, **options)]
    engine = network(*layers, nn.Tanh(), x=x)
    sketch = Sketch(2, 7, torch.arange(COPIES))
    got = engine(x.expand(COPIES, *x.shape[1:]).contiguous(), ones, sketch)
    expected = brute_force(engine.model, x)
    error = (got.mean(0) - expected).abs()
    assert bool((error < 4.5 * got.std(0) / COPIES**0.5).all())
    assert bool((got.std(0) > 0).all())


def brute_force(model: nn.Module, x: Tensor) -> Tensor:
    """The squared gradients of the sum of the outputs, by autograd."""
    vectors = torch.ones(1, 3, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    squares = {
        name: squared_gradients(model, x, parameters[name], vectors)[0] for name in weight_names(model)
    }
    return torch.cat([filter_means(s, *filter_dim(model, parameters[n])) for n, s in squares.items()])


def test_the_variance_is_that_of_the_formula() -> None:
    rule, samples, columns = RULES[torch.nn.functional.linear], 40_000, 4
    a, g = torch.randn(1, 5, 12, dtype=torch.float64), torch.randn(1, 5, 1, dtype=torch.float64)
    call = Call(a.expand(samples, 5, 12), torch.zeros(1, 12, dtype=torch.float64))
    sketch = Sketch(columns, 0, torch.arange(samples))
    got = 12 * sketch.squares(rule, call, g.expand(samples, 5, 1), samples, "layer", 0)[:, 0]
    u = (g.mT @ a)[0, 0].square().view(3, columns)  # channels c and c + 4 share a bin
    variance = 2 * (u.sum(0).square() - u.square().sum(0)).sum()
    assert got.var() == pytest.approx(float(variance), rel=0.05)


def test_signs_depend_on_the_image_and_the_pass_alone() -> None:
    x = torch.randn(6, 8, 7, 6, dtype=torch.float64)
    engine = network(nn.Conv2d(8, 5, 3), nn.Tanh(), nn.Conv2d(5, 4, 2), nn.Tanh(), x=x)
    index = torch.tensor([5, 100, 3, 42, 0, 2**40])
    whole = engine(x, ones, Sketch(2, 1, index))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    parts = [engine(x[rows], ones, Sketch(2, 1, index[rows])) for rows in order.split([1, 3, 2])]
    torch.testing.assert_close(torch.cat(parts), whole[order], rtol=1e-12, atol=0)
    assert not torch.allclose(engine(x, ones, Sketch(2, 2, index)), whole, rtol=1e-2)
    twice = engine(x, lambda outputs: ones(outputs) * 2, Sketch(2, 1, index))
    assert not torch.allclose(twice, 2 * whole, rtol=1e-2)


def test_layers_of_one_shape_have_signs_of_their_own() -> None:
    x = torch.randn(1, 8, dtype=torch.float64)
    engine = network(nn.Linear(8, 8), nn.Linear(8, 8), nn.Tanh(), x=x)
    with torch.no_grad():
        for layer in engine.model.layers[:2]:
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
    first, second = engine(x, ones, Sketch(2, 0, torch.arange(1))).split(8, 1)
    assert not torch.allclose(first, second, rtol=1e-2)


def test_as_many_columns_as_channels_is_exact() -> None:
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64)
    engine = network(nn.Conv2d(4, 5, 3), nn.Tanh(), x=x)
    assert torch.equal(engine(x, ones, Sketch(4, 0, torch.arange(3))), engine(x, ones))


@pytest.mark.parametrize(
    ("layer", "sketched"),
    [
        ((64, 9, 64, 3136), True),
        ((768, 1, 3072, 197), True),
        ((1, 49, 1, 3136), False),
        ((3, 49, 64, 12544), False),
        ((16, 1, 96, 12544), False),
        ((64, 9, 64, 4), False),
    ],
    ids=["3x3", "linear", "depthwise", "first", "few channels", "small"],
)
def test_auto_sketches_what_gains(layer: tuple[int, int, int, int], sketched: bool) -> None:
    assert (sketch_columns(*layer) < layer[0]) == sketched


def of_a_network(squares: Any, sampling: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, 64, 14, 14)
    model = nn.Sequential(
        nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 1), nn.Flatten(), nn.Linear(1152, 3)
    )
    return filterwise_fisher(model, x, sampling, squares=squares, generator=torch.Generator().manual_seed(1))


def test_auto_on_a_network() -> None:
    """The first convolution gains, the second does not."""
    exact, auto = of_a_network("exact", "sign"), of_a_network("auto", "sign")
    assert torch.equal(auto["2"], exact["2"])
    assert not torch.equal(auto["0"], exact["0"])
    assert auto["0"].sum() == pytest.approx(float(exact["0"].sum()), rel=0.3)


def test_auto_adds_no_noise_to_what_has_none() -> None:
    assert torch.equal(of_a_network("auto", "exact")["0"], of_a_network("exact", "exact")["0"])
    assert not torch.equal(of_a_network(16, "exact")["0"], of_a_network("exact", "exact")["0"])


@pytest.mark.parametrize("squares", ["fast", 0, -2, 2.0, True, None])
def test_bad_options_are_refused(squares: Any) -> None:
    with pytest.raises(ValueError, match=r"squares=.*allowed are 'exact', 'auto'"):
        filterwise_fisher(nn.Linear(2, 2), torch.zeros(1, 2), squares=squares)
