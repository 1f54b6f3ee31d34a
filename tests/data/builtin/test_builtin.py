import socket
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import skimage.data
import sklearn.datasets
import torch

from t2v_lightning.data import BUILTIN_TASKS, get_datamodule
from t2v_lightning.data.builtin.arrays import digit_task, face_turn_task
from t2v_lightning.data.builtin.bundled import bundled_digits, bundled_faces, bundled_image
from t2v_lightning.data.builtin.crop_tasks import BundledCrop, crop_task
from t2v_lightning.data.builtin.datamodule import BuiltinDataModule
from t2v_lightning.data.errors import MissingDataError, UnknownDataModuleError


def test_every_family_has_several_tasks() -> None:
    families = defaultdict(list)
    for name, task in BUILTIN_TASKS.items():
        families[task.family].append(name)
    assert len(BUILTIN_TASKS) >= 11
    assert len(families) >= 4
    assert min(len(names) for names in families.values()) >= 2


@pytest.mark.parametrize("name", BUILTIN_TASKS)
def test_classes_are_balanced_and_tasks_small(name: str) -> None:
    train, test = (BUILTIN_TASKS[name].load(split) for split in ("train", "test"))
    for task, least, most in ((train, 140, 600), (test, 60, 300)):
        assert least <= len(task) <= most
        counts = np.bincount(task.labels)
        assert counts.min() == counts.max()


@pytest.mark.parametrize("name", [name for name, task in BUILTIN_TASKS.items() if task.family != "digits"])
def test_no_source_pixel_is_in_both_splits(name: str) -> None:
    seen: dict[str, dict[str, Any]] = defaultdict(dict)
    for split in ("train", "test"):
        for sample in BUILTIN_TASKS[name].load(split).samples:
            if isinstance(sample, BundledCrop):
                shape = bundled_image(sample.source).shape[:2]
                mask = seen[sample.source].setdefault(split, np.zeros(shape, dtype=bool))
                left, top, right, bottom = sample.box
                assert left >= 0 <= top
                assert right <= shape[1]
                assert bottom <= shape[0]
                mask[top:bottom, left:right] = True
    for masks in seen.values():
        assert masks["train"].any()
        assert masks["test"].any()
        assert not (masks["train"] & masks["test"]).any()


def test_digits_are_those_of_scikit_learn() -> None:
    images, labels = bundled_digits()
    expected = sklearn.datasets.load_digits()
    assert np.array_equal(labels, expected.target)
    assert np.abs(images / 255 - expected.images / 16).max() < 1 / 255


def test_digit_groups() -> None:
    task = digit_task({"small": [1, 2], "nine": [9]}, "test", test=30)
    expected = sklearn.datasets.load_digits()
    tail, truth = expected.images[1200:], expected.target[1200:]
    for image, label in zip(task.samples, task.labels, strict=True):
        matches = np.flatnonzero(np.abs(tail / 16 - image / 255).max(axis=(1, 2)) < 1 / 255)
        assert label == {1: 0, 2: 0, 9: 1}[int(truth[matches[0]])]
    assert np.bincount(task.labels).tolist() == [20, 10]


def test_faces_are_those_of_scikit_image() -> None:
    assert np.abs(bundled_faces() / 255 - skimage.data.lfw_subset()).max() <= 0.5 / 255 + 1e-9


def test_turned_faces_are_the_same_faces() -> None:
    task = face_turn_task({"upright": 0, "upside down": 2}, "test")
    upright, turned = np.asarray(task.samples)[:30], np.asarray(task.samples)[30:]
    assert np.array_equal(upright, bundled_faces()[70:100])
    assert np.array_equal(turned, upright[:, ::-1, ::-1])


@pytest.mark.parametrize(
    ("source", "loader"),
    [
        ("skimage/coffee.png", skimage.data.coffee),
        ("skimage/brick.png", skimage.data.brick),
        ("skimage/ihc.png", skimage.data.immunohistochemistry),
        ("skimage/retina.jpg", skimage.data.retina),
        ("sklearn/china.jpg", lambda: sklearn.datasets.load_sample_image("china.jpg")),
    ],
)
def test_images_are_those_of_the_libraries(source: str, loader: Any) -> None:
    assert np.array_equal(bundled_image(source), loader())


def test_crops_are_cut_where_their_boxes_say() -> None:
    task = crop_task(["cat", "coffee"], "train")
    dataset = get_datamodule("photos_closeups")
    dataset.setup()
    coffee = skimage.data.coffee()
    for crop in task.samples[-5:]:
        left, top, right, bottom = crop.box
        image = BUILTIN_TASKS["photos"].open_image(crop)
        assert np.array_equal(np.asarray(image), coffee[top:bottom, left:right])


def test_tissue_and_vessel_labels_follow_what_the_crops_show() -> None:
    tissue = get_datamodule("medical_tissue")
    tissue.setup()
    # The stain is brown, so its epithelium has far more red than blue, and the stroma as much of either.
    redness: dict[int, list[float]] = {0: [], 1: []}
    for index in range(len(tissue.test_dataset)):
        image, label = tissue.test_dataset[index]
        red, _, blue = np.asarray(image, dtype=float).mean(axis=(0, 1))
        redness[label].append(red - blue)
    assert min(redness[0]) > max(redness[1])
    retina = get_datamodule("medical_retina")
    retina.setup()
    # A vessel makes the green channel uneven over a few pixels.
    roughness: dict[int, list[float]] = {0: [], 1: []}
    for index in range(len(retina.test_dataset)):
        image, label = retina.test_dataset[index]
        green = torch.tensor(np.asarray(image)[..., 1], dtype=torch.float64)
        local = torch.nn.functional.avg_pool2d(green[None, None], 4)
        roughness[label].append(float(local.diff(dim=-1).abs().mean() + local.diff(dim=-2).abs().mean()))
    assert np.median(roughness[0]) > 1.5 * np.median(roughness[1])


def test_no_network_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a built-in task opened a network connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for cached in (bundled_image, bundled_faces, bundled_digits):
        cached.cache_clear()
    for name in BUILTIN_TASKS:
        datamodule = get_datamodule(name)
        datamodule.setup()
        assert len(datamodule.train_dataset) > 0


def test_a_missing_image_names_the_remedy() -> None:
    with pytest.raises(MissingDataError, match=r"skimage does not contain the image nothing\.png.*reinstall"):
        bundled_image("skimage/nothing.png")


def test_an_unknown_builtin_task_is_an_error() -> None:
    with pytest.raises(UnknownDataModuleError, match=r"got built-in task 'cifar'.*digits_odd_even"):
        BuiltinDataModule("cifar")
