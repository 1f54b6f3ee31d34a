"""A network under noise: the reference's numbers, and which weights bear noise in which networks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from network_families import NETWORKS
from noise_by_hand import fixed, frozen, ones
from small_networks import Call
from torch import Tensor, nn
from torchvision.models.vgg import make_layers

from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.noise.network import NoisyNetwork
from t2v_lightning.functional.noise.normal_table import NormalTable

REFERENCE = json.loads((Path(__file__).parent / "reference_variational.json").read_text())


def doubles(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


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
