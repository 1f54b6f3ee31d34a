"""Float32 costs no digits: layer by layer, no further from float64 than plain autograd in float32 is."""

from collections.abc import Callable

import pytest
import torch
from oracles import filter_means
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork, get_probe
from t2v_lightning.data import get_datamodule
from t2v_lightning.functional.persample import PerSampleFisher

FLOOR = 3e-7
"""Two or three units in the last place: convolution kernels of one library differ by so much among themselves."""


def trained() -> tuple[ProbeNetwork, Tensor]:
    """EfficientNet-Lite0 with its ImageNet weights on digits and photographs."""
    probe = get_probe("efficientnet_lite0", input_size=96)
    images = []
    for name in ("digits", "photos"):
        datamodule = get_datamodule(name)
        datamodule.setup()
        data = datamodule.train_dataset
        images += [probe.transform(data[i][0]) for i in range(0, len(data), len(data) // 4)][:4]
    return probe, torch.stack(images)


def random(name: str) -> Callable[[], tuple[ProbeNetwork, Tensor]]:
    """Random weights and BatchNorm statistics; a tenth of the gammas tiny, half of them where little varies."""

    def make() -> tuple[ProbeNetwork, Tensor]:
        probe = get_probe(name, num_classes=5, weights=None, input_size=64)
        generator = torch.Generator().manual_seed(7)
        for module in probe.modules():
            if isinstance(module, nn.BatchNorm2d):
                variance, gamma = module.running_var, module.weight.data
                assert variance is not None
                variance.uniform_(0.1, 3.0, generator=generator)
                gamma.uniform_(0.3, 1.5, generator=generator)
                draw = torch.rand(len(gamma), generator=generator)
                gamma[draw < 0.1] *= 1e-5
                variance[draw < 0.05] *= 1e-5
                for shift in (module.running_mean, module.bias.data):
                    assert shift is not None
                    shift.normal_(0, 0.3, generator=generator)
        with torch.no_grad():
            images = torch.randn(8, *probe.input_size, generator=generator)
            probe.head.weight /= probe(images).abs().amax()
        return probe, images

    return make


NETWORKS: dict[str, Callable[[], tuple[ProbeNetwork, Tensor]]] = {
    "trained efficientnet_lite0": trained,
    "random resnet18": random("resnet18"),
    "random mobilenet_v2": random("mobilenet_v2"),
    "random densenet121": random("densenet121"),
}


def by_autograd(probe: ProbeNetwork, images: Tensor, vectors: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Filter means of the squared gradient of <v_n, f(x_n)>, [N, filters], one sample after the other."""
    parameters = [dict(probe.named_parameters())[name].requires_grad_() for name in names]
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for image, vector in zip(images, vectors, strict=True):
        gradients = torch.autograd.grad(probe(image[None])[0] @ vector, parameters)
        for name, gradient in zip(names, gradients, strict=True):
            rows[name].append(filter_means(gradient.square()))
    return {name: torch.stack(values) for name, values in rows.items()}


@pytest.mark.parametrize("network", NETWORKS)
def test_float32_is_as_near_to_float64_as_autograd_is(network: str) -> None:
    probe, images = NETWORKS[network]()
    vectors = torch.randn(len(images), probe.num_classes, generator=torch.Generator().manual_seed(2))
    engine = PerSampleFisher(probe, images, prefix=probe.layer_prefix)
    assert engine.prepared.folds  # so that folding is among what is tested
    ours = engine(images, lambda outputs: [vectors])
    names = [f"{probe.layer_prefix}{layer}.weight" for layer in engine.layers]
    single = by_autograd(probe, images, vectors, names)
    exact = by_autograd(probe.double(), images.double(), vectors.double(), names)
    for (layer, where), name in zip(engine.layers.items(), names, strict=True):
        error, plain = (relative_errors(v, exact[name]) for v in (ours[:, where], single[name]))
        assert error <= 2 * plain + FLOOR, (layer, error, plain)
    whole, plain_whole, exact_whole = (
        torch.cat([rows[name] for name in names], 1)
        for rows in (
            {n: ours[:, w] for n, w in zip(names, engine.layers.values(), strict=True)},
            single,
            exact,
        )
    )
    assert relative_errors(whole, exact_whole) <= 2 * relative_errors(plain_whole, exact_whole)


def relative_errors(values: Tensor, truth: Tensor) -> float:
    """Median over the images: a ReLU that flips at rounding throws single ones off, whatever the method."""
    errors = (values.double() - truth).norm(dim=1) / truth.norm(dim=1)
    return float(errors.median())
