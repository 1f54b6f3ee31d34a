"""How many workers read, where their batches are, and that none of it changes an embedding."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.accelerators import CPUAccelerator, CUDAAccelerator
from torch import nn

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec
from t2v_lightning.data import get_datamodule
from t2v_lightning.data.workers import MOST_WORKERS, default_workers
from t2v_lightning.loading.loader import LoaderOptions
from t2v_lightning.phases.montecarlo import MonteCarloPhase
from t2v_lightning.task2vec.plain_loop import run_plan


def trainer(accelerator: Any, devices: int = 1) -> Any:
    """What the datamodule asks a Trainer of that many devices on this node."""
    place = torch.device("cuda" if accelerator is CUDAAccelerator else "cpu")
    return SimpleNamespace(
        num_devices=devices, accelerator=accelerator(), strategy=SimpleNamespace(root_device=place)
    )


@pytest.fixture
def cpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how many CPUs this process may use."""
    return lambda number: monkeypatch.setattr("t2v_lightning.data.workers.cpu_count", lambda: number)


@pytest.mark.parametrize(
    ("accelerator", "number", "devices", "expected"),
    [
        (CPUAccelerator, 1, 1, 0),
        (CPUAccelerator, 2, 1, 0),
        (CPUAccelerator, 4, 1, 1),
        (CPUAccelerator, 4, 2, 0),
        (CPUAccelerator, 16, 2, 2),
        (CPUAccelerator, 64, 1, MOST_WORKERS),
        (CUDAAccelerator, 1, 1, 1),
        (CUDAAccelerator, 2, 4, 1),
        (CUDAAccelerator, 16, 1, 15),
        (CUDAAccelerator, 64, 8, 7),
        (CUDAAccelerator, 128, 2, MOST_WORKERS),
    ],
)
def test_the_cpus_of_a_process_decide(
    accelerator: Any, number: int, devices: int, expected: int, cpus: Any
) -> None:
    cpus(number)
    assert default_workers(trainer(accelerator, devices)) == expected


def test_a_real_trainer_says_how_many_processes_share_the_cpus(cpus: Any) -> None:
    cpus(16)
    two = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    assert default_workers(two) == 2
    assert default_workers() == 4


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in JPEG files of several sizes, two classes."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for number in range(14):
        pixels = generator.integers(0, 256, (12 + number, 30, 3), dtype=np.uint8)
        path = folder / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def loader_of(photographs: Path, of: Any = None, **options: Any) -> Any:
    datamodule = get_datamodule("image_folder", root=photographs, **options)
    datamodule.setup()
    datamodule.trainer = of
    return datamodule.train_dataloader()


def test_files_are_read_by_workers_and_built_in_images_are_not(photographs: Path, cpus: Any) -> None:
    cpus(16)
    loader = loader_of(photographs, trainer(CPUAccelerator, 2))
    assert (loader.num_workers, loader.prefetch_factor, loader.pin_memory) == (2, 2, False)
    assert loader_of(photographs, trainer(CUDAAccelerator, 2)).num_workers == 7
    digits = get_datamodule("digits")
    digits.setup()
    assert digits.train_dataloader().num_workers == 0


def test_batches_are_pinned_only_for_a_cuda_device(photographs: Path) -> None:
    assert loader_of(photographs, trainer(CUDAAccelerator)).pin_memory is True
    assert loader_of(photographs, trainer(CPUAccelerator)).pin_memory is False
    assert loader_of(photographs, trainer(CUDAAccelerator), pin_memory=False).pin_memory is False
    assert loader_of(photographs, trainer(CPUAccelerator), pin_memory=True).pin_memory is True


def test_everything_can_be_said(photographs: Path) -> None:
    loader = loader_of(photographs, num_workers=5, prefetch_factor=7, persistent_workers=True)
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (5, 7, True)
    # no worker that could read ahead, or stay
    loader = loader_of(photographs, num_workers=0, prefetch_factor=7, persistent_workers=True)
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (0, None, False)
    assert not loader_of(photographs, num_workers=5).persistent_workers


@pytest.mark.parametrize("value", ["abc", 1.5, True, -1])
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("batch_size", "from 1$"),
        ("num_workers", "from 0, and None to choose one"),
        ("prefetch_factor", "from 1, and None for 2"),
    ],
)
def test_they_are_whole_numbers(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"got {name}={value!r}; allowed are whole numbers {allowed}"):
        get_datamodule("digits", **{name: value})


def probe() -> ProbeNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        layers = [nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 9)]
    return ProbeNetwork.from_module(nn.Sequential(*layers), input_size=(3, 16, 16))


def embedded(photographs: Path, method: str, *callbacks: Callback, **options: Any) -> Embedding:
    draws: Any = {"num_samples": 30} if method == "variational" else {}
    module = Task2Vec(probe(), method, head="lbfgs", **draws)  # type: ignore[arg-type]
    fit = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
    fit.fit(module, datamodule=get_datamodule("image_folder", root=photographs, batch_size=4, **options))
    taken = module.plan.reader.options
    assert options == {name: getattr(taken, name) for name in options}
    assert not multiprocessing.active_children(), "no worker outlives the fit"
    assert module.embedding is not None
    return module.embedding


class Breaks(Callback):
    """Breaks a fit off in the middle of its second pass over the images."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:
            raise self.error


def broken_off(call: Callable[[], Any], error: type[BaseException]) -> list[Any]:
    """The workers that are left while the error, and whatever it holds, is still there."""
    before = set(multiprocessing.active_children())
    with pytest.raises(error) as held:
        call()
    assert held.tb is not None
    return [process for process in multiprocessing.active_children() if process not in before]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("error", [SystemExit(143), ValueError("of a callback")], ids=str)
def test_no_worker_outlives_a_fit_that_breaks_off(
    persistent: bool, error: BaseException, photographs: Path
) -> None:
    options = {"num_workers": 1, "persistent_workers": persistent}
    assert (
        broken_off(lambda: embedded(photographs, "montecarlo", Breaks(error), **options), type(error)) == []
    )


def test_no_worker_outlives_an_embedding_that_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one within somebody's training, whose loader has persistent workers."""
    monkeypatch.setattr(MonteCarloPhase, "step", lambda *_: int("no number"))
    task = [(torch.rand(3, 16, 16), index % 2) for index in range(12)]
    module = Task2Vec(probe(), head="lbfgs")
    plan = module.prepare(task, LoaderOptions(2, num_workers=1, persistent_workers=True))
    assert broken_off(lambda: run_plan(plan, torch.device("cpu")), ValueError) == []


@pytest.mark.parametrize("method", ["montecarlo", "variational"])
def test_workers_change_no_digit_of_an_embedding(method: str, photographs: Path) -> None:
    alone = embedded(photographs, method, num_workers=0)
    for options in (
        {"num_workers": 1, "prefetch_factor": 1},
        {"num_workers": 2},
        {"num_workers": 2, "persistent_workers": True},
    ):
        assert embedded(photographs, method, **options) == alone
