"""All classifiers of torchvision, and a model of every family against brute force."""

import gc

import pytest
import torch
import torchvision.models as zoo
from oracles import filter_means, relative_error
from torch import Tensor, nn

from t2v_lightning import ProbeNetwork, get_probe
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.likelihood import cotangents, get_likelihood
from t2v_lightning.phases import fisher_of_filters
from t2v_lightning.phases.variational import noisy_filters
from t2v_lightning.probes import list_probes

SOFTMAX = get_likelihood("softmax")
SWEPT = ["mobilenet_v3_small", "regnet_x_400mf", "shufflenet_v2_x0_5", "squeezenet1_1"]
"""Networks of the sweep that the fast tests see too."""

FAMILIES = [
    "alexnet", "vgg11_bn", "googlenet", "inception_v3", "resnet18", "resnet50", "resnext50_32x4d",
    "wide_resnet50_2", "densenet121", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "mnasnet0_5", "mnasnet1_0", "efficientnet_b0",
    "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "vit_b_32", "swin_t", "swin_v2_t",
    "maxvit_t", "efficientnet_lite0", "timm/resnet50", "timm/convnext_atto", "timm/vit_tiny_patch16_224",
    "timm/deit_tiny_patch16_224", "timm/deit3_small_patch16_224", "timm/swin_tiny_patch4_window7_224",
    "timm/efficientnet_b0", "timm/tf_efficientnet_lite0", "timm/mobilenetv3_small_050", "timm/regnety_002",
    "timm/densenet121",
]  # fmt: skip
CHEAP = ["resnet18", "squeezenet1_1", "timm/vit_tiny_patch16_224", "timm/mobilenetv3_small_050"]
"""Small relatives of the others are in `functional/engine/test_networks.py`."""

CHEAP_NOISE = ["resnet18", "squeezenet1_1"]


def side(name: str) -> int:
    """Pixels; small, but of a size that the network takes."""
    return {"maxvit_t": 224, "inception_v3": 96, "vit_h_14": 56}.get(name, 64)


def probe_of(name: str) -> ProbeNetwork:
    """Three classes and random weights, with BatchNorm statistics as unlike the initial ones as real ones are.

    The head is scaled such that no class has all the probability, which would leave nothing to compare.
    """
    probe = get_probe(name, num_classes=3, weights=None, input_size=side(name))
    generator = torch.Generator().manual_seed(3)
    for module in probe.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    with torch.no_grad():
        probe.head.weight /= probe(images_for(probe)).abs().amax()
    return probe


def images_for(probe: ProbeNetwork) -> Tensor:
    return torch.randn(2, *probe.input_size, generator=torch.Generator().manual_seed(1))


def fisher(probe: ProbeNetwork, x: Tensor, include: str) -> tuple[PerSampleFisher, Tensor]:
    engine = PerSampleFisher(probe, x, include=include, prefix=probe.layer_prefix)  # type: ignore[arg-type]
    return engine, engine(x, lambda outputs: cotangents(outputs, SOFTMAX, "exact"))


def parameter_names(probe: ProbeNetwork, engine: PerSampleFisher) -> list[str]:
    """Measured parameters, from the names of their layers."""
    names = dict(probe.named_parameters())
    return [
        name if (name := probe.layer_prefix + layer) in names else f"{name}.weight" for layer in engine.layers
    ]


def marked(names: list[str], fast: list[str]) -> list[object]:
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", marked(zoo.list_models(module=zoo), SWEPT))
def test_every_weight_of_every_network_counts(name: str) -> None:
    probe = probe_of(name)
    parameters = dict(probe.named_parameters())
    x = images_for(probe)
    engine, values = fisher(probe, x, "all")
    measured = parameter_names(probe, engine)
    assert sorted([*measured, *engine.left_out]) == sorted(parameters)
    assert set(engine.left_out.values()) == {"head", "bias"}
    assert {n for n, why in engine.left_out.items() if why == "head"} == {"head.weight"}
    assert all(n.endswith("bias") for n, why in engine.left_out.items() if why == "bias")
    assert engine.size == sum(len(parameters[n]) if parameters[n].dim() else 1 for n in measured)
    assert values.shape == (2, engine.size)
    assert values.isfinite().all()
    silent = [layer for layer, where in engine.layers.items() if not (values[:, where] > 0).any()]
    assert not silent
    del values, engine
    gc.collect()  # the largest networks of the sweep take gigabytes

    weights = {
        f"{path}.{own}"
        for path, module in probe.backbone.named_modules(prefix="backbone")
        if isinstance(module, nn.Conv2d | nn.Linear | nn.MultiheadAttention)
        for own, p in module.named_parameters(recurse=False)
        if p.dim() > 1
    }
    default = PerSampleFisher(probe, x, prefix=probe.layer_prefix)
    assert set(parameter_names(probe, default)) == weights
    assert default.size == sum(len(parameters[n]) for n in weights)
    assert sorted([*parameter_names(probe, default), *default.left_out]) == sorted(parameters)
    del probe, parameters, default
    gc.collect()


@pytest.mark.parametrize("name", marked(list_probes(), ["efficientnet_lite0", *CHEAP_NOISE]))
def test_every_network_bears_noise(name: str) -> None:
    probe = probe_of(name)
    x = images_for(probe)[:1]
    network = noisy_filters(probe)
    draws = torch.tensor([4])
    noisy = network(x, draws)
    assert torch.equal(noisy, network(x, draws))
    assert not torch.equal(noisy, network(x, draws + 1))
    gradient = torch.autograd.grad(noisy.square().sum(), network.noise.log_variance)[0]
    assert gradient.isfinite().all()
    silent = [layer for layer, where in network.noise.layers.items() if not gradient[where].any()]
    assert not silent
    weights = {
        f"{path}.weight".removeprefix(probe.layer_prefix)
        for path, module in probe.backbone.named_modules(prefix="backbone")
        if type(module) in (nn.Conv2d, nn.Linear)
    }
    noise_free = {n.removeprefix(probe.layer_prefix) for n in network.noise_free}
    assert {f"{layer}.weight" for layer in network.noise.layers} | noise_free >= weights
    del probe, network, noisy, gradient
    gc.collect()


def brute_force(probe: ProbeNetwork, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Filter means of the Fisher of each sample, [N, filters], from its definition by plain autograd."""
    parameters = [dict(probe.named_parameters())[n].requires_grad_() for n in names]
    rows: dict[str, list[Tensor]] = {n: [] for n in names}
    for sample in x:
        f = probe(torch.stack([sample, sample]))[0]  # torch's BatchNorm is wrong for some batches of one
        p = f.detach().softmax(0)
        totals = [torch.zeros(len(q) if q.dim() else 1, dtype=q.dtype) for q in parameters]
        for k in range(len(f)):
            product = p[k].sqrt() * (f[k] - p @ f)
            for total, g in zip(
                totals, torch.autograd.grad(product, parameters, retain_graph=True), strict=True
            ):
                total += filter_means(g.square()).view(-1)
        for name, total in zip(names, totals, strict=True):
            rows[name].append(total)
    return {name: torch.stack(values) for name, values in rows.items()}


@pytest.mark.parametrize("name", marked(FAMILIES, CHEAP))
def test_family_equals_brute_force(name: str) -> None:
    probe = probe_of(name).double()
    x = images_for(probe).double()
    found = [fisher(probe, x, include) for include in ("all", "weights")]
    expected = brute_force(probe, x, parameter_names(probe, found[0][0]))
    for engine, values in found:
        errors = {
            layer: relative_error(values[:, where], expected[name])
            for (layer, where), name in zip(
                engine.layers.items(), parameter_names(probe, engine), strict=True
            )
        }
        assert max(errors.values()) < 1e-7, max(errors.items(), key=lambda item: item[1])
    gc.collect()


class Standardised(nn.Conv2d):
    """A convolution whose weight is computed from the parameter."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


def test_weights_without_closed_form_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    vit = get_probe("timm/vit_tiny_patch16_224", num_classes=3, weights=None, input_size=32)
    network = nn.Sequential(Standardised(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    probe = ProbeNetwork.from_module(network, input_size=8)
    with caplog.at_level("INFO", logger="t2v_lightning"):
        fisher_of_filters(vit, 0, "all")  # tokens and positions that all images share have one
        assert not caplog.messages
        fisher_of_filters(probe, 0, "weights")
    (message,) = caplog.messages
    assert message.startswith("no closed form for 0;")
