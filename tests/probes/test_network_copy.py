"""A copy of a network in training."""

from typing import Any

import pytest
import torch
from torch import nn

from t2v_lightning.probes.network_copy import copy_network


def test_hooks_that_make_weights_are_copied_and_others_are_not() -> None:
    layer = nn.utils.prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=8)
    layer.register_forward_pre_hook(lambda module, inputs: pytest.fail("the run's hook saw the copy"))
    x = torch.randn(2, 4)
    copied = copy_network(layer)
    assert torch.equal(copied(x), nn.functional.linear(x, layer.weight, layer.bias))
    with torch.no_grad():
        copied.get_parameter("weight_orig").mul_(2)
    assert not torch.equal(copied(x), nn.functional.linear(x, layer.weight, layer.bias))  # computed again


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_a_network_in_the_middle_of_a_step_can_be_copied(norm: Any) -> None:
    net = nn.Sequential(norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    x = torch.randn(2, 4)
    net(x).sum().backward()
    net.eval()
    assert torch.equal(copy_network(net)(x), net(x))
    assert all(p.grad is None for p in copy_network(net).parameters())
