"""Measuring experts on tasks: the error of a linear head on their features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from t2v_lightning.data.base import TaskDataModule
from t2v_lightning.data.dataset import TaskDataset, collate_images
from t2v_lightning.functional.head import fit_newton, with_ones
from t2v_lightning.functional.likelihood import get_likelihood
from t2v_lightning.functional.transferability import probe_accuracy
from t2v_lightning.library.experts import Maker, as_expert
from t2v_lightning.library.protocol import Protocol
from t2v_lightning.library.results import Result
from t2v_lightning.library.task_library import TaskLibrary
from t2v_lightning.probes import ProbeNetwork

_PENALTY, _NEAR = 1e-3, 1e-3
"""Of the head, on features whose mean squared norm is 1; and the gain that is too small for another step."""


@dataclass(frozen=True)
class Images:
    """The images of a task that experts are measured on.

    Attributes:
        task: its name.
        train, test: its splits, whose items are PIL images and labels; `test` is empty where the task has none.
        batch_size: images that pass through an expert together.
        num_workers: processes that read them.
    """

    task: str
    train: TaskDataset[Any]
    test: TaskDataset[Any] | None
    batch_size: int = 64
    num_workers: int = 0

    @classmethod
    def of(cls, datamodule: TaskDataModule, num_workers: int = 0) -> Images:
        """Those of a datamodule.

        Raises:
            ValueError: the targets are no classes, or there are fewer than two.
        """
        if datamodule.likelihood != "softmax":
            raise ValueError(
                f"the targets of {datamodule.task_name!r} are of the likelihood {datamodule.likelihood!r}; experts are "
                "measured on classes"
            )
        datamodule.setup("fit")
        train, test = datamodule.train_dataset, datamodule.test_dataset
        if len(np.unique(np.asarray(train.targets))) < 2:
            raise ValueError(f"{datamodule.task_name!r} has images of one class only; experts need two")
        return cls(
            datamodule.task_name, train, test if len(test) else None, datamodule.batch_size, num_workers
        )


def measure(
    library: TaskLibrary,
    images: Images,
    experts: Mapping[str, ProbeNetwork | nn.Module | Maker],
    protocols: Sequence[Protocol] = (Protocol(),),
    *,
    device: str | torch.device = "cpu",
    save: bool = True,
) -> Iterator[Result]:
    """Fills the empty cells of a task: the error of each expert by each protocol.

    A head is fitted to the features of the training images, or of `images` of each class drawn by the protocol's seed,
    all classes weighted alike. Its error is that on the test split; where a task has none, on the training images that
    were not drawn, and with all of them by five-fold cross-validation (`probe_accuracy`). Cells that are filled stay as
    they are, so that what was interrupted goes on where it was. An expert that fails on the images has its reason as
    result, unless memory ran out.

    Args:
        library: has the task.
        images: of the task.
        experts: probes, or networks that end in a Linear layer (a LightningModule, say), or functions that make one
            when its turn comes; by name.
        protocols: of the kind `probe`. Each expert sees each image once for all of them.
        device: where experts run.
        save: write the library to its folder after each expert; other processes may do so at the same time.

    Yields:
        The new results.

    Raises:
        KeyError: the library has no such task.
        ValueError: a protocol that is no probe, or that leaves a class without an image to fit to.

    >>> from t2v_lightning.data import get_datamodule
    >>> from t2v_lightning.embedding import Embedding
    >>> from t2v_lightning.probes import get_probe
    >>> library = TaskLibrary()
    >>> library.add(Embedding([1.0], [1.0]), name="textures")
    >>> expert = get_probe("resnet18", weights=None, input_size=32)
    >>> task = Images.of(get_datamodule("textures"))
    >>> found = list(measure(library, task, {"random": expert}, [Protocol("probe", images=2, seed=0)], save=False))
    >>> [(result.expert, 0 < result.error < 100) for result in found]
    [('random', True)]
    """
    library[images.task]  # an unknown task is an error before any work
    _check(protocols, images)
    for name, expert in experts.items():
        missing = [p for p in protocols if library.results.get(images.task, name, p) is None]
        if not missing:
            continue
        probe = as_expert(expert)
        results = _measured(probe.to(device), name, images, missing)
        if save and library.folder is not None:
            record(library.folder, results)
        for result in results:
            library.add_result(
                result.task, result.expert, result.error, result.stderr, result.protocol, result.failure
            )
            yield result


def record(folder: str | Path, results: Sequence[Result]) -> None:
    """Adds results to the library in a folder, whoever else does so at the same time.

    Raises:
        KeyError: the library lacks a task.
        ValueError: another result of the same protocol is there.
    """
    place = Path(folder)
    with FileLock(place / ".results.lock"):
        library = TaskLibrary(place)
        for r in results:
            library.add_result(r.task, r.expert, r.error, r.stderr, r.protocol, r.failure)
        library.save()


def draw(labels: NDArray[np.int64], protocol: Protocol) -> NDArray[np.int64]:
    """Positions of the images that a protocol fits to: all, or some of each class by its seed, in order.

    A class with fewer images gives all that it has.

    >>> draw(np.array([0, 1, 0, 1, 0]), Protocol("probe", images=1, seed=0)).size
    2
    """
    if protocol.images is None:
        return np.arange(len(labels))
    rng = np.random.default_rng(protocol.seed or 0)
    of_class = (np.flatnonzero(labels == label) for label in np.unique(labels))
    return np.sort(np.concatenate([rng.permutation(places)[: protocol.images] for places in of_class]))


def _check(protocols: Sequence[Protocol], images: Images) -> None:
    for protocol in protocols:
        if protocol.kind != "probe":
            raise ValueError(
                f"got the protocol {protocol}; only those of the kind probe are measured here. Add results of "
                "fine-tuning with add_result()"
            )
        if images.test is None and protocol.images is not None:
            counts = np.bincount(np.asarray(images.train.targets))
            if counts[counts > 0].min() <= protocol.images:
                raise ValueError(
                    f"{images.task!r} has no test split, and a class of {counts[counts > 0].min()} images: with "
                    f"{protocol.images} of them to fit to, none is left to test on. Use fewer"
                )


def _measured(probe: ProbeNetwork, name: str, images: Images, protocols: Sequence[Protocol]) -> list[Result]:
    try:
        y = np.asarray(images.train.targets)
        drawn = {protocol: draw(y, protocol) for protocol in protocols}
        used = np.arange(len(y)) if images.test is None else np.unique(np.concatenate([*drawn.values()]))
        features = expert_features(probe, Subset(images.train, used.tolist()), images)
        tests = None if images.test is None else expert_features(probe, images.test, images)
        answers = None if images.test is None else np.asarray(images.test.targets)
    except torch.OutOfMemoryError:  # of the machine, and not of the expert: another one may have room
        raise
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return [Result(images.task, name, p, float("nan"), failure=reason) for p in protocols]
    found = []
    for protocol, chosen in drawn.items():
        rows = np.searchsorted(used, chosen)
        if tests is not None and answers is not None:
            count, share = len(answers), head_error(features[rows], y[chosen], tests, answers)
        elif protocol.images is None:
            count, share = len(y), 1 - probe_accuracy(features.numpy(), y)
        else:
            others = np.setdiff1d(np.arange(len(y)), chosen)
            count = len(others)
            share = head_error(features[rows], y[chosen], features[others], y[others])
        stderr = 100 * math.sqrt(share * (1 - share) / count)
        found.append(Result(images.task, name, protocol, 100 * share, stderr))
    return found


def head_error(
    features: Tensor, labels: NDArray[np.int64], tests: Tensor, answers: NDArray[np.int64]
) -> float:
    r"""Share of test images that a linear head gets wrong.

    The head minimises the mean over classes of their mean cross-entropy plus :math:`\tfrac{\lambda}{2} (\|W\|^2 +
    \|b\|^2)` with :math:`\lambda = 10^{-3}`, on features that are centred and divided by the root of their mean squared
    norm.

    Args:
        features: [N, P], of the images that it is fitted to.
        labels: int64 [N].
        tests: [M, P].
        answers: int64 [M].

    >>> x = torch.tensor([[1.0, 0.1], [-1.1, 0.0]])
    >>> head_error(x, np.array([0, 1]), x * 2, np.array([0, 0]))
    0.5
    """
    z, y = features.double(), torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    classes = np.unique(labels)
    mean = z.mean(0)
    scale = (z - mean).square().sum(1).mean().sqrt().clamp_min(1e-12)
    weights = 1 / y.bincount()[y].double()
    batch = (with_ones((z - mean) / scale), y, weights / weights.sum())
    head = fit_newton([batch], len(classes), get_likelihood("softmax"), _PENALTY, near=_NEAR)
    outputs = with_ones((tests.double() - mean) / scale) @ head.T
    return float(np.mean(classes[outputs.argmax(1).numpy()] != answers))


class _Prepared(Dataset[tuple[Tensor, int]]):
    """Images as an expert takes them."""

    def __init__(self, images: Dataset[Any], transform: Callable[..., Tensor] | None) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.images[index]
        return (image if self.transform is None else self.transform(image)), int(label)


@torch.inference_mode()
def expert_features(probe: ProbeNetwork, data: Dataset[Any], images: Images) -> Tensor:
    """Features float32 [N, P] on the CPU, in the order of the data."""
    device = next(probe.parameters()).device
    loader = DataLoader(
        _Prepared(data, probe.transform),
        batch_size=images.batch_size,
        num_workers=images.num_workers,
        collate_fn=collate_images,
    )
    found = torch.cat([probe.features(batch.to(device)).float().cpu() for batch, _ in loader])
    if not bool(torch.isfinite(found).all()):
        raise ValueError("its features are not finite")
    return found
