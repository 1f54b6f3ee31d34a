"""What an embedding leaves as it was: the caller's network, and the statistics of BatchNorm."""

from typing import Any

import pytest
import torch
from small_fits import QUICK, fit, task
from small_probe import small_module, small_probe
from torch import Tensor, nn

from t2v_lightning import Task2Vec


def everything(probe: nn.Module) -> dict[str, Any]:
    return {
        "state": {name: value.clone() for name, value in probe.state_dict().items()},
        "mode": [m.training for m in probe.modules()],
        "flags": [p.requires_grad for p in probe.parameters()],
        "grads": [p.grad for p in probe.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in probe.modules()],
        "devices": [(p.device, p.dtype) for p in probe.parameters()],
    }


def unchanged(probe: nn.Module, before: dict[str, Any]) -> bool:
    now = everything(probe)
    state = now.pop("state")
    earlier = before.pop("state")
    return (
        state.keys() == earlier.keys()
        and all(torch.equal(state[name], earlier[name]) for name in state)
        and now == before
    )


class Padded(nn.Module):
    """Takes images of any size and three channels, so that it can be made a probe without telling its size."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x.mean(1, keepdim=True))
        return y


@pytest.mark.parametrize("kind", ["probe", "module in train mode"])
@pytest.mark.parametrize("run", ["embed", "fit", "failed"])
def test_the_callers_network_is_untouched(kind: str, run: str) -> None:
    network: nn.Module = small_probe(double=False) if kind == "probe" else Padded(small_module())
    if kind != "probe":
        network.train()
        network.body[0].bias.requires_grad_(False)  # type: ignore[index, union-attr]
    before, state = everything(network), torch.get_rng_state()
    module = Task2Vec(network, head=QUICK)
    items = (
        task(8, double=False)
        if kind == "probe"
        else [(x.expand(3, 8, 8), y) for x, y in task(8, double=False)]
    )
    if run == "embed":
        module.embed(items, progress=False)
        assert torch.equal(torch.get_rng_state(), state)
    elif run == "fit":
        fit(module, items, precision="64-true")
    else:
        items[5][0].fill_(float("nan")) if kind == "probe" else items.__setitem__(5, (items[5][0] / 0, 1))
        with pytest.raises(ValueError, match="NaN"):
            module.embed(items, progress=False)
    assert unchanged(network, before)


def test_batch_norm_statistics_do_not_move_in_a_fit() -> None:
    module = Task2Vec(small_probe(double=False), head=QUICK)
    before = module.probe.digest
    fit(module, task(double=False))
    assert module.probe.digest == before
    assert not any(m.training for m in module.probe.modules())
