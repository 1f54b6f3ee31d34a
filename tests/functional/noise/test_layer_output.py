"""The output of one noisy layer against its written-out form in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from noise_by_hand import fixed, frozen, ones, written_out
from small_networks import Call, Flat
from torch import Tensor, nn

from t2v_lightning.functional.noise.network import NoisyNetwork
from t2v_lightning.functional.noise.normal_table import NormalTable


def check_against_written_out(layer: Any, x: Tensor, pad: Callable[[Tensor], Tensor] = lambda x: x) -> None:
    """Values and all gradients of one noisy layer, on inputs that take gradients themselves, and its squares."""
    model: Any = frozen(Flat(layer, Call(lambda y: y * 1), x=x.double()))
    x = x.double().requires_grad_()
    network = NoisyNetwork(model, x, fixed)
    options = {k: getattr(layer, k) for k in ("stride", "padding", "dilation", "groups") if hasattr(layer, k)}
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        options["padding"] = 0
    functions: dict[int, Any] = {2: F.linear, 3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
    func = functions[layer.weight.dim()]
    log_variance = network.noise.log_variance
    log_variance.data += torch.randn_like(log_variance)
    a = pad(x)
    mean = func(a, layer.weight, layer.bias, **options)
    epsilon = fixed(0, torch.tensor([4, 7]), mean[0].numel()).double().view(mean.shape)
    variance = written_out(func, a, layer.weight, log_variance, **options)
    expected = model.head((mean + epsilon * variance.sqrt()).flatten(1))
    result = network(x, torch.tensor([4, 7]))
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    vectors = torch.randn_like(result)
    gradients = torch.autograd.grad(result, [x, log_variance], vectors)
    of_input, of_noise, of_output = torch.autograd.grad(expected, [x, log_variance, mean], vectors)
    torch.testing.assert_close(gradients, (of_input, of_noise), rtol=1e-10, atol=1e-10)
    filters = -1 if func is F.linear else 1
    squares = 0.5 * (of_output**2 * variance).movedim(filters, 0).flatten(1).sum(1)
    result = network(x, torch.tensor([4, 7]), squared=True)
    gradients = torch.autograd.grad(result, [x, log_variance], vectors)
    torch.testing.assert_close(gradients, (of_input, squares), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
        (nn.Conv1d(4, 6, 4, stride=2, dilation=2, groups=2), (2, 4, 15)),
        (nn.Conv2d(3, 5, 3, padding="same", dilation=2), (2, 3, 7, 8)),
        (nn.Conv2d(3, 5, (4, 3), padding="same"), (2, 3, 7, 8)),
        (nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, bias=False), (2, 6, 7, 8)),
        (nn.Conv2d(6, 6, 5, padding=2, groups=6), (2, 6, 7, 8)),
        (nn.Conv2d(6, 12, 3, padding="valid", groups=6), (2, 6, 7, 8)),
        (nn.Conv2d(6, 4, 1, stride=2), (2, 6, 7, 8)),
        (nn.Conv3d(2, 4, 2, stride=2, padding=1, groups=2), (2, 2, 5, 4, 3)),
        (nn.Linear(5, 3), (2, 5)),
        (nn.Linear(5, 3, bias=False), (2, 4, 5)),
        (nn.Linear(5, 3), (2, 3, 4, 5)),
    ],
    ids=str,
)
def test_one_channel_form_is_the_written_out_form(layer: nn.Module, shape: tuple[int, ...]) -> None:
    check_against_written_out(layer, torch.randn(shape))


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_other_padding_modes_pad_before_they_square(mode: Any) -> None:
    layer = nn.Conv2d(3, 5, 3, padding=(2, 1), padding_mode=mode)
    check_against_written_out(layer, torch.randn(2, 3, 6, 6), lambda x: F.pad(x, (1, 1, 2, 2), mode=mode))


def test_windows_of_nothing_but_padding_have_no_noise_and_finite_gradients() -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    layer = nn.Conv2d(3, 5, 1, padding=1, bias=False)
    seen: list[Tensor] = []
    network = NoisyNetwork(frozen(Flat(layer, x=x.detach())), x, fixed)
    output = network(x, torch.arange(2), lambda name, y: seen.append(y))
    assert seen[0][:, :, 0].abs().max() < 1e-100
    gradients = torch.autograd.grad(output.sum(), [x, network.noise.log_variance])
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_the_input_is_seen_as_the_layer_gets_it() -> None:
    """A convolution that pads inside `forward`, on parameters of its own."""

    class PaddingItself(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.kernel, stride=2)

    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    model: Any = frozen(Flat(PaddingItself(), x=x))
    network = NoisyNetwork(model, x, ones)
    weight = model.get_parameter("layers.0.kernel")
    a = F.pad(x, (0, 1, 0, 1))
    variance = written_out(F.conv2d, a, weight, network.noise.log_variance, stride=2)
    expected = model.head((F.conv2d(a, weight, stride=2) + variance.sqrt()).flatten(1))
    torch.testing.assert_close(network(x, torch.arange(2)), expected, rtol=1e-12, atol=1e-12)


def test_noise_has_the_variance_that_the_formula_says() -> None:
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    layer = nn.Conv2d(3, 4, 3)
    network = NoisyNetwork(frozen(Flat(layer, x=x)), x, NormalTable(0).read)
    seen: list[Tensor] = []
    network(x.expand(4000, -1, -1, -1), torch.arange(4000), lambda name, y: seen.append(y.detach()))
    variance = written_out(F.conv2d, x, layer.weight, network.noise.log_variance.detach())
    torch.testing.assert_close(seen[0].var(0, keepdim=True), variance, rtol=0.12, atol=0)
    error = (seen[0].mean(0, keepdim=True) - layer(x)) / variance.sqrt()
    assert error.abs().max() < 5 / 4000**0.5
