"""What an embedding made is freed with it, by reference counting only: no cycle keeps networks in memory."""

import copy
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_probe import small_module, small_probe, striped
from torch import nn

from t2v_lightning import ProbeNetwork, Task2Vec, embed
from t2v_lightning.phases import HeadOptions

SHORT = {"head": HeadOptions(epochs=1, num_samples=64), "batch_size": 4, "progress": False}


@pytest.fixture(autouse=True)
def without_a_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list["weakref.ref[Any]"]:
    """Every network that was copied, and every tensor of one."""
    found: list[weakref.ref[Any]] = []
    copied = copy.deepcopy

    def watched(value: Any, *rest: Any) -> Any:
        result = copied(value, *rest)
        if isinstance(result, nn.Module):
            found.extend(weakref.ref(part) for part in result.modules())
            found.extend(weakref.ref(parameter) for parameter in result.parameters())
        return result

    monkeypatch.setattr(copy, "deepcopy", watched)
    return found


METHODS = [
    {"sampling": "exact"},
    {"include": "all", "passes": 2},
    {"target_stderr": 0.5},
    {"method": "variational", "num_samples": 16, "epochs": 1, "update_norm": True},
]


@pytest.mark.parametrize("options", METHODS, ids=str)
@pytest.mark.parametrize("given", ["probe", "network"])
def test_networks_are_freed_when_the_embedding_is_there(
    options: dict[str, Any], given: str, copies: list["weakref.ref[Any]"]
) -> None:
    network = small_probe() if given == "probe" else ProbeNetwork.from_module(small_module(), (1, 8, 8))
    before = len([ref for ref in copies if ref() is not None])
    embedding = embed(striped(12, double=given == "probe"), network, **options, **SHORT)
    assert len(copies) > before
    assert len([ref for ref in copies if ref() is not None]) == before
    assert len(embedding) == (14 if options.get("include") == "all" else 10)  # 4 more in the BatchNorm


@pytest.mark.parametrize("options", METHODS[1:3], ids=str)
def test_networks_are_freed_when_an_error_ends_the_work(
    options: dict[str, Any], copies: list["weakref.ref[Any]"]
) -> None:
    probe, task = small_probe(), striped(12)
    task[7] = (task[7][0][:, :4, :4] * torch.nan, task[7][1])
    before = len([ref for ref in copies if ref() is not None])
    with pytest.raises(ValueError, match="image 7"):
        embed(task, probe, **options, **SHORT)
    assert len([ref for ref in copies if ref() is not None]) == before


def test_a_module_is_freed_with_all_that_its_last_embedding_left() -> None:
    module = Task2Vec(small_probe(), head=SHORT["head"])  # type: ignore[arg-type]
    module.embed(striped(12), batch_size=4, progress=False, test=striped(6))
    refs = [weakref.ref(module), weakref.ref(module.probe), weakref.ref(module.plan)]
    del module
    assert [ref() for ref in refs] == [None] * 3
