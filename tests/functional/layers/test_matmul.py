"""Products with a matrix of parameters on the right: a filter is a column, whatever the product is called."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import filter_means, parameter_fisher, relative_error, squared_gradients
from small_networks import Flat
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.layers import RULES, Call
from t2v_lightning.functional.layers.sketch import Sketch
from t2v_lightning.functional.noise.network import NoisyNetwork
from t2v_lightning.functional.noise.normal_table import NormalTable


def addmm(x: Tensor, w: Tensor, b: Tensor, **options: Any) -> Tensor:
    return torch.addmm(b, x.reshape(-1, x.shape[-1]), w, **options).view(*x.shape[:-1], -1)


PRODUCTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "operator": lambda x, w, b: x @ w,
    "matmul": lambda x, w, b: torch.matmul(x, other=w) + b,
    "method": lambda x, w, b: x.matmul(w),
    "mm": lambda x, w, b: torch.mm(x.flatten(0, 1), w).unflatten(0, (-1, x.shape[1])),
    "addmm": addmm,
    "addmm, scaled": lambda x, w, b: addmm(x, w, b, alpha=-0.5, beta=2),
    "addmm of a tensor": lambda x, w, b: b.addmm(x.flatten(0, 1), mat2=w).unflatten(0, (-1, x.shape[1])),
    "einsum": lambda x, w, b: torch.einsum("btc,cf->btf", x, w),
    "einsum, a list": lambda x, w, b: torch.einsum("...c, cf -> ...f", [x, w]),
    "einsum, the weight first": lambda x, w, b: torch.einsum("cf,btc->btf", w, x),
}  # fmt: skip


class Product(nn.Module):
    def __init__(self, how: str, inputs: int = 4, outputs: int = 6) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(inputs, outputs)),
            nn.Parameter(torch.randn(outputs)),
        )
        self.how = how

    def forward(self, x: Tensor) -> Any:
        return PRODUCTS[self.how](x, self.weight, self.bias)


@pytest.mark.parametrize("length", [5, 40])
@pytest.mark.parametrize("how", PRODUCTS)
def test_products(how: str, length: int) -> None:
    """As a first layer and behind another, in both forms of the squares."""
    x = torch.randn(3, length, 4, dtype=torch.float64)
    model = Flat(Product(how), nn.Tanh(), Product(how, 6, 5), nn.Tanh(), x=x)
    assert not PerSampleFisher(model, x).fallback
    got = filterwise_fisher(model, x)
    for name in ("layers.0", "layers.2"):
        weight = model.get_parameter(f"{name}.weight")
        assert relative_error(got[name], filter_means(parameter_fisher(model, x, weight), 1)) < 1e-10


def test_the_transposed_matrix_of_an_einsum_has_its_filters_in_rows() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4))

        def forward(self, x: Tensor) -> Any:
            return torch.einsum("oc,btc->bto", self.weight, x)

    x = torch.randn(3, 5, 4, dtype=torch.float64)
    model = Flat(Rows(), nn.Tanh(), x=x)
    assert not PerSampleFisher(model, x).fallback
    expected = filter_means(parameter_fisher(model, x, model.layers[0].weight))
    assert relative_error(filterwise_fisher(model, x)["layers.0"], expected) < 1e-10


@pytest.mark.parametrize("how", ["operator", "addmm, scaled", "einsum"])
def test_the_mean_over_many_sketches_is_the_square(how: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 5, 4, dtype=torch.float64)
    model, copies = Flat(Product(how), nn.Tanh(), x=x), 400
    engine = PerSampleFisher(model, x)
    got = engine(x.expand(copies, 5, 4), lambda f: [torch.ones_like(f)], Sketch(2, 3, torch.arange(copies)))
    squares = squared_gradients(model, x, model.layers[0].weight, torch.ones(1, 3, dtype=torch.float64))[0]
    error = (got.mean(0) - filter_means(squares, 1)).abs()
    assert bool((error < 4.5 * got.std(0) / copies**0.5).all())
    assert bool((got.std(0) > 0).all())


@pytest.mark.parametrize("how", ["operator", "addmm, scaled"])
def test_the_noise_of_a_product_is_that_of_noisy_weights(how: str) -> None:
    """The variance over draws of the output noise, against that of alpha * (a^2 + 0.01) @ variance."""
    torch.manual_seed(0)
    x, draws = torch.randn(1, 2, 6, dtype=torch.float64).expand(4000, 2, 6), torch.arange(4000)
    read = nn.Linear(12, 12)
    model = nn.Sequential(Product(how, 6, 6), nn.Flatten(), read).double().requires_grad_(False)
    nn.init.eye_(read.weight)
    nn.init.zeros_(read.bias)
    noisy = NoisyNetwork(model.eval(), x[:1], NormalTable(0).read)
    with torch.no_grad():
        noisy.noise.log_variance.copy_(torch.linspace(-1, 1, 6))
        got = noisy(x, draws).var(0).view(2, 6)
    scale = 0.25 if "scaled" in how else 1
    expected = scale * (x[0].square() + 0.01).sum(1, keepdim=True) * torch.linspace(-1, 1, 6).double().exp()
    torch.testing.assert_close(got, expected, rtol=0.12, atol=0)


def test_products_that_are_no_layers_are_measured_all_the_same() -> None:
    """A matrix on the left, a product of parameters, a vector, and a product whose other side is constant."""

    class Others(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.up, self.down = (nn.Parameter(torch.randn(4, 4)) for _ in range(3))
            self.vector, self.register = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4, 4))

        def forward(self, x: Tensor) -> Any:
            y = torch.tanh(self.left @ x) @ (self.up @ self.down)
            return y + (x @ self.vector)[..., None] + torch.eye(4).double() @ self.register

    x = torch.randn(3, 4, 4, dtype=torch.float64)
    model = Flat(Others(), nn.Tanh(), x=x)
    got = filterwise_fisher(model, x, include="all")
    columns = {"register", "down"}
    for name in ("left", "up", "down", "vector", "register"):
        squares = parameter_fisher(model, x, getattr(model.layers[0], name))
        expected = filter_means(squares, int(name in columns))
        assert relative_error(got[f"layers.0.{name}"], expected) < 1e-10, name


class Largest(TorchDispatchMode):
    """The most numbers that a tensor has which is made in its block."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        self.numbers = max(self.numbers, result.numel() if isinstance(result, Tensor) else 0)
        return result


@pytest.mark.parametrize("work", ["sketched squares", "gradients"])
@pytest.mark.parametrize("function", [torch.addmm, nn.functional.linear, nn.functional.embedding])
def test_flattened_rows_take_no_more_memory_than_those_of_each_sample(work: str, function: Any) -> None:
    """GPT-2's `Conv1D` flattens [N, T, C] to [N T, C]: sums and gradients are still those of N samples, not of N T."""
    samples, length, channels, filters = 3, 50, 32, 4
    rule, grad = RULES[function], torch.randn(samples, length, filters)
    a = torch.randn(samples, length, channels)
    weight = torch.zeros(filters, channels)
    if function is torch.addmm:
        weight = weight.T
    elif function is nn.functional.embedding:
        a, weight = torch.randint(channels, (samples, length)), weight.T

    def run(call: Call, grad: Tensor) -> tuple[Tensor, int]:
        with Largest() as largest:
            if work == "gradients":
                result = rule.per_sample(call, grad, samples)
            else:
                result = Sketch(8, 0, torch.arange(samples)).squares(rule, call, grad, samples, "layer", 0)
        return result, largest.numbers

    expected, most = run(Call(a, weight), grad)
    got, numbers = run(Call(a.flatten(0, 1), weight), grad.flatten(0, 1))
    torch.testing.assert_close(got, expected)
    assert numbers <= most
