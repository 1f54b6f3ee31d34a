"""Small relatives of the networks people use as probes, against brute force in float64."""

import pytest
import torch
from network_families import NETWORKS
from oracles import filter_means, output_fisher, relative_error
from torch import Tensor, nn

from t2v_lightning.functional import filterwise_fisher


def all_fishers(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The exact Fisher of all parameters at once, a sample and an output at a time."""
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for n in range(len(x)):
        f = model(x[n : n + 1])[0]
        eigenvalues, vectors = torch.linalg.eigh(output_fisher(f.detach(), "softmax"))
        for value, vector in zip(eigenvalues, vectors.T, strict=True):
            gradients = torch.autograd.grad(
                f @ vector, list(parameters.values()), retain_graph=True, allow_unused=True
            )
            for name, gradient in zip(parameters, gradients, strict=True):
                total[name] += 0 if gradient is None else value * gradient.detach() ** 2
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_small_relatives_of_real_networks(name: str) -> None:
    """Grouped, depthwise, strided and shuffled convolutions, dense joins, attention, shifted windows."""
    build, size = NETWORKS[name]
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, -1.5, 1.5)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    head = [key for key, p in model.named_parameters() if p.dim() == 2 and len(p) == 3][-1]
    nn.init.normal_(model.get_parameter(head))  # some start with a head of zeros
    expected = all_fishers(model, x)
    got = filterwise_fisher(model, x, include="weights+norm")
    wanted = [key for key in expected if key.endswith("weight") and key != head]
    assert list(got) == [key.removesuffix(".weight") for key in wanted]
    for key in wanted:
        assert relative_error(got[key.removesuffix(".weight")], filter_means(expected[key])) < 1e-10, key
