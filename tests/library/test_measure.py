"""Errors of experts on a task: which images, which head, what is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize
from torch import Tensor, nn
from torchvision.models import resnet18

from t2v_lightning import Embedding, ProbeNetwork
from t2v_lightning.data.dataset import TaskDataset
from t2v_lightning.data.task import Task
from t2v_lightning.library import Protocol, TaskLibrary
from t2v_lightning.library.experts import expert_of
from t2v_lightning.library.measure import Images, draw, head_error, measure, record

FEW = Protocol("probe", images=3, seed=1)


class Levels(nn.Module):
    """Features are the mean of each colour, and its square."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.broken, self.calls = nn.Linear(6, 2), False, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += len(images)
        if self.broken:
            raise RuntimeError("no such\nkernel")
        means = images.mean((2, 3))
        out: Tensor = self.fc(torch.cat([means, means**2], 1))
        return out


def expert() -> ProbeNetwork:
    return ProbeNetwork.from_module(Levels(), input_size=(3, 8, 8), transform=to_tensor)


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / 255


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def split(count: int, seed: int) -> TaskDataset[Any]:
    """Two classes of colours that overlap."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    colours = (100 + 40 * labels[:, None] + rng.normal(size=(count, 3)) * 40).clip(0, 255).astype(int)
    return TaskDataset(Task([tuple(c) for c in colours.tolist()], labels, ("dark", "light")), plain)


def images(test: int = 60) -> Images:
    return Images("levels", split(40, 0), split(test, 1) if test else None, batch_size=16)


@pytest.fixture
def library(tmp_path: Path) -> TaskLibrary:
    made = TaskLibrary()
    made.add(Embedding([1.0, 2.0], [1, 1]), name="levels")
    made.save(tmp_path / "lib")
    return made


def features(data: TaskDataset[Any]) -> np.ndarray:
    means = np.array([np.array(colour) / 255 for colour in data.task.samples])
    return np.concatenate([means, means**2], 1)


def oracle(x: np.ndarray, y: np.ndarray, tests: np.ndarray, answers: np.ndarray) -> float:
    """Error in percent of the penalised head, found by another optimiser."""
    mean = x.mean(0)
    scale = np.sqrt(((x - mean) ** 2).sum(1).mean())
    z, t = ((np.c_[part - mean, np.full(len(part), scale)]) / scale for part in (x, tests))
    weights = 1 / np.bincount(y)[y]
    weights /= weights.sum()

    def loss(flat: np.ndarray) -> float:
        w = flat.reshape(2, -1)
        f = z @ w.T
        f = f - f.max(1, keepdims=True)
        each = np.log(np.exp(f).sum(1)) - f[np.arange(len(y)), y]
        return float(weights @ each + 0.0005 * (w**2).sum())

    best = minimize(
        loss, np.zeros(2 * z.shape[1]), method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-14}
    )
    return 100 * float(np.mean((t @ best.x.reshape(2, -1).T).argmax(1) != answers))


def test_errors_are_those_of_the_convex_head_on_the_test_split(library: TaskLibrary) -> None:
    found = {r.protocol: r for r in measure(library, images(), {"net": expert()}, [Protocol(), FEW])}
    train, test = split(40, 0), split(60, 1)
    x, y, t, a = features(train), np.array(train.targets), features(test), np.array(test.targets)
    assert found[Protocol()].error == pytest.approx(oracle(x, y, t, a), abs=100 / 60 + 1e-9)
    chosen = draw(y, FEW)
    assert np.bincount(y[chosen]).tolist() == [3, 3]
    assert found[FEW].error == pytest.approx(oracle(x[chosen], y[chosen], t, a), abs=100 / 60 + 1e-9)
    share = found[FEW].error / 100
    assert found[FEW].stderr == pytest.approx(100 * np.sqrt(share * (1 - share) / 60))
    assert library.folder is not None
    stored = TaskLibrary(library.folder).results.get("levels", "net", FEW)
    assert stored == found[FEW]


def test_without_a_test_split_the_other_images_are_tested_on(library: TaskLibrary) -> None:
    (few, every) = measure(library, images(0), {"net": expert()}, [FEW, Protocol()])
    train = split(40, 0)
    x, y = features(train), np.array(train.targets)
    chosen = draw(y, FEW)
    others = np.setdiff1d(np.arange(40), chosen)
    expected = oracle(x[chosen], y[chosen], x[others], y[others])
    assert few.error == pytest.approx(expected, abs=100 / 34 + 1e-9)
    assert 0 < every.error < 50
    with pytest.raises(ValueError, match="has no test split, and a class of 20 images: with 20 of them"):
        next(measure(library, images(0), {"net": expert()}, [Protocol("probe", images=20, seed=0)]))


def test_filled_cells_stay_and_each_image_is_seen_once_for_all_protocols(library: TaskLibrary) -> None:
    probe = expert()
    assert len(list(measure(library, images(), {"net": probe}, [Protocol()]))) == 1
    calls = probe.backbone.calls
    assert list(measure(library, images(), {"net": probe}, [Protocol()])) == []
    assert probe.backbone.calls == calls
    made = []

    def maker() -> ProbeNetwork:
        made.append("other")
        return probe

    levels: Any = probe.backbone
    levels.calls = 0
    both = [Protocol("probe", images=3, seed=seed) for seed in (0, 1)]
    assert len(list(measure(library, images(), {"net": probe, "other": maker}, [Protocol(), *both]))) == 5
    assert made == ["other"]
    drawn = len(
        {*draw(np.array(split(40, 0).targets), both[0]), *draw(np.array(split(40, 0).targets), both[1])}
    )
    assert probe.backbone.calls == (drawn + 60) + (40 + 60)


def test_an_expert_that_fails_has_its_reason(library: TaskLibrary) -> None:
    bad = expert()
    levels: Any = bad.backbone
    levels.broken = True
    first, second = measure(library, images(), {"bad": bad, "net": expert()})
    assert (first.failure, np.isnan(first.error)) == ("no such kernel", True)
    assert second.failure == ""
    assert library.folder is not None
    assert {r.expert: r.failure for r in TaskLibrary(library.folder).results} == {
        "bad": "no such kernel",
        "net": "",
    }


def test_a_machine_that_runs_out_of_memory_says_nothing_of_the_expert(
    library: TaskLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    large = expert()
    monkeypatch.setattr(large.backbone, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        list(measure(library, images(), {"large": large}))
    assert not list(library.results)


def test_what_cannot_be_measured_is_refused_before_any_work(library: TaskLibrary) -> None:
    probe = expert()
    with pytest.raises(ValueError, match="got the protocol finetune; only those of the kind probe"):
        next(measure(library, images(), {"net": probe}, [Protocol("finetune")]))
    with pytest.raises(KeyError, match="no task 'other'"):
        next(measure(library, Images("other", split(4, 0), None), {"net": probe}))
    assert probe.backbone.calls == 0


def test_results_of_two_processes_are_both_kept(library: TaskLibrary) -> None:
    """Each has opened the library before the other has written to it."""
    assert library.folder is not None
    mine, theirs = TaskLibrary(library.folder), TaskLibrary(library.folder)
    list(measure(mine, images(), {"a": expert()}))
    list(measure(theirs, images(), {"b": expert()}))
    assert [r.expert for r in TaskLibrary(library.folder).results] == ["a", "b"]
    (result,) = (r for r in mine.results)
    record(library.folder, [result])  # the same again changes nothing
    with pytest.raises(ValueError, match="is there already"):
        record(library.folder, [type(result)("levels", "a", result.protocol, result.error + 1)])


def test_classes_that_were_not_drawn_are_never_right() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    labels = np.array([2, 5])
    assert head_error(x, labels, torch.cat([x, x]), np.array([2, 5, 0, 1])) == 0.5


def test_experts_by_name(tmp_path: Path) -> None:
    name, make = expert_of("resnet18", input_size=32)
    assert name == "resnet18"
    weights = tmp_path / "w.pth"
    torch.save(resnet18(num_classes=5).state_dict(), weights)
    name, make = expert_of(f"mine=resnet18:{weights}", input_size=32)
    assert (name, make().num_classes) == ("mine", 5)
    for text, error, said in (
        ("resnet19", KeyError, "unknown probe 'resnet19'"),
        ("mine=resnet18", ValueError, "is no expert; write the name of a network"),
        ("resnet18:w.pth", ValueError, "is no expert"),
        ("mine=resnet18:missing.pth", FileNotFoundError, "no weights file missing.pth"),
        ("os:system", ValueError, "is no expert"),
    ):
        with pytest.raises(error, match=said):
            expert_of(text)
