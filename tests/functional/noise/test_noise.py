"""Noisy layers against the written-out form in float64, the reference's numbers, and the theory of the optimum."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_networks import Call, Flat
from test_networks import NETWORKS
from torch import Tensor, nn
from torchvision.models.vgg import make_layers

from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.noise.network import NoisyNetwork
from t2v_lightning.functional.noise.normal_table import NormalTable
from t2v_lightning.functional.noise.parameters import (
    NoiseParameters,
    initial_log_lambda2,
    initial_log_variance,
)

REFERENCE = json.loads((Path(__file__).parent / "reference_variational.json").read_text())


def doubles(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def ones(call: int, draws: Tensor, size: int) -> Tensor:
    return torch.ones(len(draws), size)


def fixed(call: int, draws: Tensor, size: int) -> Tensor:
    """Numbers of a draw and a call, by torch's own generator."""
    seeds = [1000 * call + int(draw) for draw in draws]
    return torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(s)) for s in seeds])


def frozen(model: nn.Module) -> nn.Module:
    return model.double().eval().requires_grad_(False)


def reference_network() -> nn.Module:
    layers = [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 5),
        Call(lambda x: x + 0),  # so that the last layer is no head, and bears noise too
    ]
    model = frozen(nn.Sequential(*layers))
    for name, weight in REFERENCE["weights"].items():
        layer: Any = model.get_submodule(name)
        layer.weight.copy_(doubles(weight))
        if layer.bias is not None:
            layer.bias.zero_()
    return model


def test_initial_values_output_and_kl_are_those_of_the_reference() -> None:
    model, x = reference_network(), doubles(REFERENCE["input"])
    network = NoisyNetwork(model, x, ones)
    noise = network.noise
    assert list(noise.layers) == ["0", "2", "5"]
    for number, (name, entries) in enumerate(noise.layers.items()):
        expected = doubles(REFERENCE["log_variance_init"][name])
        torch.testing.assert_close(noise.log_variance[entries].detach(), expected, rtol=1e-6, atol=0)
        lambda2 = REFERENCE["log_lambda2_init"][name]
        assert noise.log_lambda2[number].item() == pytest.approx(lambda2, rel=1e-6)
    output = network(x, torch.arange(len(x)))
    torch.testing.assert_close(output.detach(), doubles(REFERENCE["noisy_output"]), rtol=1e-6, atol=0)
    assert noise.kl().item() == pytest.approx(REFERENCE["compression_loss"], rel=1e-6)


def written_out(
    func: Callable[..., Tensor], a: Tensor, w: Tensor, log_variance: Tensor, **options: Any
) -> Tensor:
    """Variance of the output: the layer itself on squares and variances, weight by weight."""
    variances = log_variance.exp().view(-1, *[1] * (w.dim() - 1)).expand(w.shape)
    return func(a**2 + 0.01, variances, **options)


def check_against_written_out(layer: Any, x: Tensor, pad: Callable[[Tensor], Tensor] = lambda x: x) -> None:
    """Values and all gradients of one noisy layer, on inputs that take gradients themselves."""
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
    gradients = [torch.autograd.grad(y, [x, log_variance], vectors) for y in (result, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-10)


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


def vgg() -> nn.Module:
    features = make_layers([8, "M", 12, "M"], batch_norm=True)
    return nn.Sequential(
        features, nn.Flatten(), nn.Linear(12 * 64, 10), nn.ReLU(True), nn.Dropout(), nn.Linear(10, 3)
    )


class Transformer(nn.Module):
    """Rows of a sample along dimension 1, as in PyTorch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(x.transpose(0, 1)).mean(0))
        return y


class Windows(nn.Module):
    """Rows of all samples in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.inner(x.transpose(0, 1).flatten(0, 1))
        y: Tensor = self.head(rows.unflatten(0, (-1, len(x))).relu().mean(0))
        return y


ALL_NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{name: (make, (3, size, size)) for name, (make, size) in NETWORKS.items()},
    "vgg": (vgg, (3, 32, 32)),
    "transformer": (Transformer, (5, 8)),
    "windows": (Windows, (7, 4)),
}


@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_networks_bear_noise_that_belongs_to_the_draw_alone(name: str) -> None:
    make, shape = ALL_NETWORKS[name]
    model = frozen(make())
    for parameter in model.parameters():
        if not bool(parameter.any()):
            parameter.normal_(0, 0.3)  # the head of a vision transformer begins at zero
    x = torch.rand(3, *shape, dtype=torch.float64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    network = NoisyNetwork(model, x, NormalTable(0).read)
    assert network.noise.layers == PerSampleFisher(model, x).layers
    draws = torch.tensor([5, 2, 5])
    outputs: list[Tensor] = []
    result = network(x, draws, lambda layer, y: outputs.append(y))
    gradient = torch.autograd.grad(result.square().sum(), network.noise.log_variance)[0]
    assert bool(gradient.isfinite().all())
    for entries in network.noise.layers.values():
        assert gradient[entries].abs().max() > 0
    alone = torch.cat([network(x[n : n + 1], draws[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(result, alone, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(result, network(x, draws + 1))
    same_image = network(x[[0, 0, 0]], draws)
    torch.testing.assert_close(same_image[0], same_image[2], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(same_image[0], same_image[1], rtol=1e-3)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    torch.testing.assert_close(model(x), frozen(model)(x))


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


def test_weights_used_twice_get_fresh_noise_each_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.shared(self.shared(x).relu()))
            return y

    calls: list[int] = []

    def record(call: int, draws: Tensor, size: int) -> Tensor:
        calls.append(call)
        return ones(call, draws, size)

    x = torch.randn(2, 4, dtype=torch.float64)
    network = NoisyNetwork(frozen(Twice()), x, record)
    network(x, torch.arange(2))
    assert calls == [0, 1]
    assert list(network.noise.layers) == ["shared"]


def test_kl_is_twice_the_divergence_of_gaussians() -> None:
    weights = {"a": torch.randn(3, 2, 2, 2, dtype=torch.float64), "b": torch.randn(4, 5, dtype=torch.float64)}
    noise = NoiseParameters(weights)
    noise.log_variance.data += torch.randn_like(noise.log_variance)
    noise.log_lambda2.data += torch.randn_like(noise.log_lambda2)
    expected = 0.0
    for number, (name, w) in enumerate(weights.items()):
        std = (
            (0.5 * noise.log_variance[noise.layers[name]])
            .exp()
            .view(-1, *[1] * (w.dim() - 1))
            .expand(w.shape)
        )
        prior = torch.distributions.Normal(0.0, (0.5 * noise.log_lambda2[number]).exp())
        divergence = torch.distributions.kl_divergence(torch.distributions.Normal(w, std), prior)
        expected += 2 * divergence.sum().item()
    assert noise.kl().item() == pytest.approx(expected, rel=1e-12)


def test_filters_of_one_weight_start_from_the_variance_of_their_layer() -> None:
    weight = torch.tensor([[1.0], [3.0], [5.0]])
    torch.testing.assert_close(initial_log_variance(weight), torch.full((3,), 0.05 * 4.0).log())
    assert initial_log_variance(torch.ones(1, 1)).isfinite().all()
    assert initial_log_lambda2(weight) == pytest.approx(torch.tensor(35 / 3).log())


def test_half_precision_keeps_its_type_and_matches_float32() -> None:
    x = torch.randn(2, 3, 8, 8)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 6), nn.ReLU(), nn.Linear(6, 3)
    )
    model.eval().requires_grad_(False)
    network = NoisyNetwork(model, x, fixed)
    types: list[torch.dtype] = []
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = network(x, torch.arange(2), lambda name, y: types.append(y.dtype))
        gradients.append(torch.autograd.grad(output.float().square().sum(), network.noise.log_variance)[0])
    assert types == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert (gradients[1] - gradients[0]).norm() < 0.03 * gradients[0].norm()


def test_skipped_stages_are_noise_free_and_build_no_graph() -> None:
    model: Any = frozen(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(20, 2))
    )
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    network = NoisyNetwork(model, x, fixed, candidates={"2.weight", "2.bias"})
    assert network.noise.layers == {"2": slice(0, 5)}
    inputs: list[Tensor] = []
    handle = model[2].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    network(x, torch.arange(2))
    handle.remove()
    assert not inputs[0].requires_grad
    torch.testing.assert_close(inputs[0], model[1](model[0](x)))


def test_other_weights_stay_noise_free_and_are_named() -> None:
    layers = [
        nn.ConvTranspose2d(3, 4, 2),
        nn.GroupNorm(2, 4),
        nn.Conv2d(4, 5, 3),
        nn.Flatten(),
        nn.Linear(125, 2),
    ]
    model = frozen(nn.Sequential(*layers))
    network = NoisyNetwork(model, torch.randn(2, 3, 6, 6, dtype=torch.float64), ones)
    assert list(network.noise.layers) == ["2"]
    assert network.noise_free == {"0.weight": "used by ConvTranspose"}


def test_a_weight_that_no_image_reaches_says_so() -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.mlp = nn.Parameter(torch.randn(1, 4)), nn.Linear(4, 4)
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Any:
            return self.head(torch.tanh(self.body(x) + self.mlp(self.token)))

    network = NoisyNetwork(frozen(Token()), torch.randn(2, 4, dtype=torch.float64), ones)
    assert list(network.noise.layers) == ["body"]
    assert network.noise_free == {
        "token": "used by linear",
        "mlp.weight": "its input does not depend on the image",
    }


def test_a_network_with_nothing_to_put_noise_on_is_an_error_that_says_so() -> None:
    model = frozen(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    with pytest.raises(ValueError, match="no convolution or linear weight before its head"):
        NoisyNetwork(model, torch.randn(2, 12, dtype=torch.float64), ones)


def test_affine_parameters_are_learned_as_copies() -> None:
    layers: list[Any] = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)]
    model = frozen(nn.Sequential(*layers))
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    network = NoisyNetwork(model, x, ones, learn_affine=True)
    weight, bias = network.noise.affine
    assert weight.shape == bias.shape == (4,)
    with torch.no_grad():
        weight.fill_(2.0)
        bias.fill_(-1.0)
    noisy: list[Tensor] = []
    output = network(x, torch.arange(2), lambda name, y: noisy.append(y))
    layers[1].weight.fill_(2.0)
    layers[1].bias.fill_(-1.0)
    expected = nn.Sequential(*layers[1:])(noisy[0])
    torch.testing.assert_close(output, expected)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(output.sum(), list(network.noise.affine)))
    assert not NoisyNetwork(model, x, ones).noise.affine


def statistics(values: Iterable[Tensor]) -> tuple[float, float]:
    stacked = torch.stack(list(values)).double()
    return float(stacked.mean()), float(stacked.std())


def test_table_numbers_are_normal_and_independent() -> None:
    table = NormalTable(3)
    numbers = table.read(2, torch.arange(8), 40_000)
    mean, std = statistics([numbers])
    assert abs(mean) < 5 / 320_000**0.5
    assert abs(std - 1) < 5 / 640_000**0.5
    assert abs(float((numbers**3).mean())) < 5 * (15 / 320_000) ** 0.5
    assert abs(float((numbers**4).mean()) - 3) < 5 * (96 / 320_000) ** 0.5
    others = (table.read(3, torch.arange(8), 40_000), NormalTable(4).read(2, torch.arange(8), 40_000))
    for other in (*others, numbers.roll(1, 0), numbers.roll(1, 1)):
        assert abs(float((numbers * other).mean())) < 5 / 320_000**0.5


def test_table_numbers_depend_on_seed_stream_and_index_alone() -> None:
    table = NormalTable(0)
    together = table.read(1, torch.tensor([4, 9, 4]), 20_000)
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1:2], NormalTable(0).read(1, torch.tensor([9]), 20_000))
    assert table.read(1, torch.tensor([], dtype=torch.int64), 7).shape == (0, 7)
