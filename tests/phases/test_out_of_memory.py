"""A batch that runs out of memory is processed in parts, in every phase, with the same result."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_probe import small_probe, striped
from torch import Tensor

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.noise.network import NoisyNetwork
from t2v_lightning.loading.loader import LoaderOptions
from t2v_lightning.phases import FeaturesPhase, HeadOptions
from t2v_lightning.phases.out_of_memory import Halving, ran_out_of_memory
from t2v_lightning.task2vec.plain_loop import run_plan

SHORT: dict[str, Any] = {"head": HeadOptions(epochs=1, num_samples=100)}


def room_for(most: int, function: Callable[..., Any], sizes: list[int]) -> Callable[..., Any]:
    """The function on a device that holds so many images; notes the sizes of the calls that went through."""

    def limited(images: Tensor, *rest: Any) -> Any:
        if len(images) > most:
            raise torch.OutOfMemoryError(f"no room for {len(images)} images")
        sizes.append(len(images))
        return function(images, *rest)

    return limited


def limit_calls(owner: Any, most: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    call = owner.__call__

    def limited(self: Any, images: Tensor, *rest: Any, **options: Any) -> Any:
        return room_for(most, lambda *inputs: call(self, *inputs, **options), sizes)(images, *rest)

    monkeypatch.setattr(owner, "__call__", limited)


def embed(batch_size: int, **options: Any) -> Embedding:
    module = Task2Vec(small_probe(), **SHORT, **options)
    return module.embed(striped(21), batch_size=batch_size, progress=False)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "t2v_lightning.phases.out_of_memory"]


# --- by itself -----------------------------------------------------------------------------------------------


def test_parts_come_in_order_with_what_belongs_to_them() -> None:
    def pair(images: Tensor, names: Tensor) -> Tensor:
        assert len(images) == len(names)
        if len(images) > 3:
            raise torch.OutOfMemoryError("no")
        return images * 10 + names

    parts = Halving("test")(pair, torch.arange(11), torch.arange(11))
    assert torch.cat(parts).tolist() == [11 * i for i in range(11)]
    assert [len(part) for part in parts] == [3, 3, 3, 2]


def test_the_size_that_fits_is_kept_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def function(images: Tensor) -> Tensor:
        tried.append(len(images))
        if len(images) > room:
            raise torch.OutOfMemoryError("no")
        return images

    halving, room = Halving("fisher"), 5
    for batch in (16, 16, 3):
        halving(function, torch.zeros(batch))
    assert tried == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4, 3]
    room = 2
    halving(function, torch.zeros(4))
    assert tried[11:] == [4, 2, 2]
    assert len(warnings_in(caplog)) == 1
    assert "a batch of 16 items did not fit into the memory of cpu in the fisher phase" in caplog.text
    assert "parts of 4" in caplog.text


def test_one_image_that_does_not_fit_is_an_error_that_says_what_to_do() -> None:
    def full(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("Tried to allocate 2 GiB")

    with pytest.raises(torch.OutOfMemoryError, match=r"a single item .* fisher phase: take smaller .* 2 GiB"):
        Halving("fisher")(full, torch.zeros(5))


def test_other_errors_pass() -> None:
    def broken(images: Tensor) -> Tensor:
        calls.append(len(images))
        raise RuntimeError("shapes do not match")

    calls: list[int] = []
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Halving("fisher")(broken, torch.zeros(5))
    assert calls == [5]


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes", True),
        ("CUDA error: device-side assert triggered", False),
    ],
)
def test_what_counts_as_out_of_memory(text: str, memory: bool) -> None:
    assert ran_out_of_memory(RuntimeError(text)) is memory


def test_the_memory_of_the_attempt_is_free_before_the_next() -> None:
    attempts: list[Any] = []

    def function(images: Tensor) -> Tensor:
        assert all(attempt() is None for attempt in attempts)
        work = images * 2
        attempts.append(weakref.ref(work))
        if len(images) > 2:
            raise torch.OutOfMemoryError("no")
        return images + work

    Halving("test")(function, torch.zeros(16))
    assert len(attempts) == 3 + 8


# --- in the phases -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "owner", "options"),
    [
        ("features", "features", {}),
        ("fisher", PerSampleFisher, {"passes": 2}),
        ("variational", NoisyNetwork, {"method": "variational", "num_samples": 60}),
    ],
)
def test_every_phase_goes_on_in_parts_with_the_same_result(
    phase: str, owner: Any, options: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = embed(8, **options)
    assert warnings_in(caplog) == []
    sizes: list[int] = []
    if owner == "features":
        initialise = FeaturesPhase.__init__

        def with_little_room(self: FeaturesPhase, probe: Any, features: Any, *rest: Any) -> None:
            initialise(self, probe, room_for(3, features, sizes), *rest)

        monkeypatch.setattr(FeaturesPhase, "__init__", with_little_room)
    else:
        limit_calls(owner, 3, sizes, monkeypatch)
    halved = embed(8, **options)
    assert max(sizes) == 2  # 8, 4, 2
    assert sum(sizes) == {"features": 21, "fisher": 21, "variational": 120}[phase]
    np.testing.assert_allclose(halved.fisher, expected.fisher, rtol=1e-9)
    np.testing.assert_allclose(halved.scale, expected.scale, rtol=1e-9)
    (said,) = warnings_in(caplog)
    assert f"in the {phase} phase" in said


@pytest.mark.parametrize("room", [3, 100])
def test_processes_meet_once_a_batch_whoever_halves(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process waits for one sum a batch: a second one would hang it or mix two batches up."""
    module = Task2Vec(small_probe(), method="variational", num_samples=60, epochs=1, **SHORT)
    meetings: list[int] = []
    plan = module.prepare(striped(21), LoaderOptions(batch_size=10))
    learning: Any = plan.phases[-1]
    learning.all_reduce = lambda sums: meetings.append(sums.numel())
    limit_calls(NoisyNetwork, room, [], monkeypatch)
    run_plan(plan, torch.device("cpu"))
    filters, head, counts = 10, 24 * 3 + 3, 3
    assert meetings.count(filters + head + counts) == 6
