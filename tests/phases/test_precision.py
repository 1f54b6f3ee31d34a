"""Float32 costs no digits: layer by layer, no further from float64 than plain autograd in float32 is."""

from collections.abc import Callable

import pytest
import torch
from oracles import filter_means
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork, get_probe
from t2v_lightning.data import get_datamodule
from t2v_lightning.functional.engine.per_sample import PerSampleFisher

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


def by_autograd(
    probe: ProbeNetwork, images: Tensor, vectors: Tensor, names: list[str], batched: bool = False
) -> dict[str, Tensor]:
    """Filter means of the squared gradient of <v_n, f(x_n)>, [N, filters], one sample after the other.

    Convolution kernels, and how well they round, depend on the CPU, the layout and the size of the batch: `batched`
    takes those of a batch in channels-last, as the engine does.
    """
    parameters = [dict(probe.named_parameters())[name].requires_grad_() for name in names]
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    if batched:
        probe.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        outputs = list(probe(images.contiguous(memory_format=torch.channels_last)))
    else:
        outputs = [probe(image[None])[0] for image in images]
    for output, vector in zip(outputs, vectors, strict=True):
        gradients = torch.autograd.grad(output @ vector, parameters, retain_graph=batched)
        for name, gradient in zip(names, gradients, strict=True):
            rows[name].append(filter_means(gradient.square()))
    return {name: torch.stack(values) for name, values in rows.items()}


@pytest.mark.parametrize(
    "network",
    [pytest.param(name, marks=pytest.mark.slow if "densenet" in name else ()) for name in NETWORKS],
)
@pytest.mark.slow
def test_float32_is_as_near_to_float64_as_autograd_is(network: str) -> None:
    probe, images = NETWORKS[network]()
    vectors = torch.randn(len(images), probe.num_classes, generator=torch.Generator().manual_seed(2))
    engine = PerSampleFisher(probe, images, prefix=probe.layer_prefix)
    assert engine.prepared.folds  # so that folding is among what is tested
    ours = engine(images, lambda outputs: [vectors])
    names = [f"{probe.layer_prefix}{layer}.weight" for layer in engine.layers]
    plains = [by_autograd(probe, images, vectors, names, batched) for batched in (False, True)]
    exact = by_autograd(probe.double(), images.double(), vectors.double(), names)
    for (layer, where), name in zip(engine.layers.items(), names, strict=True):
        error = relative_errors(ours[:, where], exact[name])
        plain = max(relative_errors(rows[name], exact[name]) for rows in plains)
        assert error <= 2 * plain + FLOOR, (layer, error, plain)
    whole, exact_whole, *plain_wholes = (
        torch.cat([rows[name] for name in names], 1)
        for rows in (
            {n: ours[:, w] for n, w in zip(names, engine.layers.values(), strict=True)},
            exact,
            *plains,
        )
    )
    plain = max(relative_errors(rows, exact_whole) for rows in plain_wholes)
    assert relative_errors(whole, exact_whole) <= 2 * plain


def relative_errors(values: Tensor, truth: Tensor) -> float:
    """Median over the images: a ReLU that flips at rounding throws single ones off, whatever the method."""
    errors = (values.double() - truth).norm(dim=1) / truth.norm(dim=1)
    return float(errors.median())
