"""What every datamodule of images guarantees, whatever its benchmark."""

import functools
import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from replicas import REPLICAS
from torch import Tensor
from torchvision.transforms.functional import resize, to_tensor

from t2v_lightning.data import TEXT_TASKS, TaskDataModule, get_datamodule, list_datamodules
from t2v_lightning.data.download.catalogue import CATALOGUE
from t2v_lightning.data.errors import MissingDataError, UnknownTaskError
from t2v_lightning.probes.transforms import ImageTransform

DOWNLOADED = set(CATALOGUE) - {"cub200", "inat2018"} | {"split_mnist", "split_cifar", "cifar10_mnist"}


def small_square(image: Image.Image) -> Tensor:
    """A deterministic transform that pickles."""
    return to_tensor(resize(image, [16, 16]))


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Options that open a benchmark; its replica, if it needs one, is written once."""

    @functools.cache
    def options(name: str) -> dict[str, Any]:
        if name == "hf" and importlib.util.find_spec("datasets") is None:
            pytest.skip("the extra hf is not installed")
        return REPLICAS[name](tmp_path_factory.mktemp(name)) if name in REPLICAS else {}

    return options


@pytest.fixture(params=[name for name in list_datamodules() if name not in {"text", *TEXT_TASKS}])
def make(
    request: pytest.FixtureRequest, replica: Callable[[str], dict[str, Any]]
) -> Callable[..., TaskDataModule]:
    needed = replica(request.param)

    def build(**options: Any) -> TaskDataModule:
        return get_datamodule(request.param, **{**needed, **options})

    return build


def ready(datamodule: TaskDataModule) -> TaskDataModule:
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def test_describes_its_task_before_setup(make: Callable[..., TaskDataModule]) -> None:
    datamodule = make()
    assert isinstance(datamodule, LightningDataModule)
    assert datamodule.name in list_datamodules()
    assert datamodule.task_name == datamodule.task_names[datamodule.task_id]
    assert len(set(datamodule.task_names)) == len(datamodule.task_names)
    assert datamodule.num_classes == len(datamodule.class_names) == len(set(datamodule.class_names)) >= 2
    assert datamodule.family
    assert datamodule.likelihood in ("softmax", "bernoulli", "gaussian")


def test_images_are_rgb_and_targets_are_known_without_opening_them(
    make: Callable[..., TaskDataModule],
) -> None:
    datamodule = ready(make())
    for dataset in (datamodule.train_dataset, datamodule.test_dataset):
        assert len(dataset) == len(dataset.targets) > 0
        for index in (0, len(dataset) // 2, len(dataset) - 1):
            image, target = dataset[index]
            assert isinstance(image, Image.Image)
            assert image.mode == "RGB"
            assert torch.equal(torch.as_tensor(target), torch.as_tensor(dataset.targets[index]))


def test_labels_are_0_to_k_minus_1_and_all_are_there(make: Callable[..., TaskDataModule]) -> None:
    datamodule = ready(make())
    for dataset in (datamodule.train_dataset, datamodule.test_dataset):
        if datamodule.likelihood == "softmax":
            assert isinstance(dataset.targets, list)
            assert all(type(target) is int for target in dataset.targets)
            assert set(dataset.targets) == set(range(datamodule.num_classes))
        else:
            assert isinstance(dataset.targets, Tensor)
            assert dataset.targets.shape == (len(dataset), datamodule.num_classes)


def test_no_image_is_in_both_splits(make: Callable[..., TaskDataModule]) -> None:
    datamodule = ready(make())
    train, test = (
        {(image.size, image.tobytes()) for image, _ in (dataset[i] for i in range(len(dataset)))}
        for dataset in (datamodule.train_dataset, datamodule.test_dataset)
    )
    assert not train & test


def test_two_instances_give_the_same(make: Callable[..., TaskDataModule]) -> None:
    first, second = ready(make()), ready(make())
    assert first.train_dataset.targets == second.train_dataset.targets
    for index in range(0, len(first.train_dataset), 37):
        assert first.train_dataset[index][0].tobytes() == second.train_dataset[index][0].tobytes()


def test_pickles_into_workers(make: Callable[..., TaskDataModule]) -> None:
    datamodule = ready(make(transform=small_square))
    # A trainer does not pickle, so the dataset must not hold on to the datamodule that knows it.
    datamodule.trainer = lambda: None  # type: ignore[assignment]
    copied = pickle.loads(pickle.dumps(datamodule.train_dataset))
    assert torch.equal(copied[3][0], datamodule.train_dataset[3][0])
    assert copied.targets == datamodule.train_dataset.targets


def test_the_embedding_transform_of_a_probe_is_deterministic(make: Callable[..., TaskDataModule]) -> None:
    """What Task2Vec applies to these images gives the same tensor each time, of the size that the probe takes."""
    transform = ImageTransform.default((3, 48, 48))
    for dataset in (ready(make(transform=transform)).train_dataset, ready(make()).test_dataset):
        image = dataset[1][0]
        first = image if isinstance(image, Tensor) else transform(image)
        again = dataset[1][0]
        assert torch.equal(first, again if isinstance(again, Tensor) else transform(again))
        assert first.shape == (3, 48, 48)
        assert first.dtype == torch.float32
        assert bool(torch.isfinite(first).all())


def test_loaders_give_batches_of_the_split_in_order(make: Callable[..., TaskDataModule]) -> None:
    datamodule = ready(make(transform=small_square, batch_size=8))
    for loader in (datamodule.val_dataloader(), datamodule.test_dataloader()):
        images, targets = next(iter(loader))
        assert images.shape == (8, 3, 16, 16)
        assert images.dtype == torch.float32
        assert torch.equal(targets, torch.as_tensor(datamodule.test_dataset.targets[:8]))
        assert torch.equal(images[5], datamodule.test_dataset[5][0])


def test_train_loader_covers_the_split_shuffled(make: Callable[..., TaskDataModule]) -> None:
    datamodule = ready(make(transform=small_square, batch_size=8))
    torch.manual_seed(0)
    drawn = torch.cat([targets for _, targets in datamodule.train_dataloader()])
    expected = torch.as_tensor(datamodule.train_dataset.targets)
    assert not torch.equal(drawn, expected)
    assert torch.equal(drawn.sum(0), expected.sum(0))
    if drawn.ndim == 1:
        assert np.array_equal(np.bincount(drawn), np.bincount(expected))


@pytest.mark.parametrize("beyond", [-1, 1, True, 1.5, "0"])
def test_a_task_number_out_of_range_is_an_error(make: Callable[..., TaskDataModule], beyond: Any) -> None:
    count = len(make().task_names)
    wrong = count if beyond == 1 and beyond is not True else beyond
    with pytest.raises(UnknownTaskError, match=rf"got task_id={wrong!r}.*allowed are 0\.\.{count - 1}"):
        make(task_id=wrong)


def test_statistics_are_of_three_channels(make: Callable[..., TaskDataModule]) -> None:
    datamodule = make()
    assert len(datamodule.mean) == len(datamodule.std) == 3
    assert all(0 < value < 1 for value in (*datamodule.mean, *datamodule.std))


@pytest.mark.parametrize("name", sorted(REPLICAS))
def test_a_missing_root_names_the_remedy(name: str, tmp_path: Path) -> None:
    if name == "hf" and importlib.util.find_spec("datasets") is None:
        pytest.skip("the extra hf is not installed")
    offline = {"download": False} if name in DOWNLOADED else {}
    remedy = r"scripts/|data\.download|kaggle\.com|pass root="
    with pytest.raises(MissingDataError, match=f"dataset .*({remedy})"):
        get_datamodule(name, **offline).setup()
    with pytest.raises(MissingDataError, match=f"({remedy}|holds no folder)"):
        get_datamodule(name, root=tmp_path, **offline).setup()
    with pytest.raises(MissingDataError, match=f"({remedy})"):
        get_datamodule(name, root=tmp_path / "nowhere", **offline).setup()


@pytest.mark.parametrize("name", sorted(REPLICAS))
def test_every_benchmark_takes_the_options_of_all(name: str) -> None:
    with pytest.raises(TypeError, match=r"allowed are .*transform, batch_size, num_workers, on_error"):
        get_datamodule(name, nonsense=1)
    with pytest.raises(ValueError, match=r"got on_error='hide'; allowed are raise and skip"):
        get_datamodule(name, on_error="hide")
