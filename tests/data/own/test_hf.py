import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from replicas import noise, save_image, write_hf
from torch.utils.data import DataLoader

from t2v_lightning.data import TaskDataModule, get_datamodule
from t2v_lightning.data.dataset import collate_images
from t2v_lightning.data.errors import AnnotationError, ImageError, MissingDataError

datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
logging.getLogger("datasets").setLevel(logging.ERROR)


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    return [Image.fromarray(noise(9, 8, 3, seed=1000 * seed + number)) for number in range(count)]


def save(root: Path, columns: dict[str, Any], kinds: dict[str, Any] | None = None) -> Path:
    features = datasets.Features({"picture": datasets.Image(), **kinds}) if kinds else None
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(root / "saved"))
    return root / "saved"


def opened(**options: Any) -> TaskDataModule:
    datamodule = get_datamodule("hf", **options)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def test_a_saved_dataset_with_splits(tmp_path: Path) -> None:
    datamodule = opened(**write_hf(tmp_path))
    assert (datamodule.task_names, datamodule.class_names) == (["saved"], ["cat", "dog"])
    assert datamodule.train_dataset.targets == [number % 2 for number in range(20)]
    assert len(datamodule.test_dataset) == 10
    assert np.array_equal(np.asarray(datamodule.train_dataset[3][0]), noise(9, 8, 3, seed=23))
    assert np.array_equal(np.asarray(datamodule.test_dataset[3][0]), noise(9, 8, 3, seed=13))
    named = opened(root=tmp_path, dataset="saved")
    assert named.train_dataset.targets == datamodule.train_dataset.targets


def test_images_reach_workers(tmp_path: Path) -> None:
    datamodule = opened(**write_hf(tmp_path))
    loader: Any = DataLoader(datamodule.train_dataset, batch_size=8, num_workers=1, collate_fn=collate_images)
    images = torch.cat([images for images, _ in loader])
    expected = torch.stack([torch.from_numpy(noise(9, 8, 3, seed=20 + n)) for n in range(20)])
    assert torch.equal((images * 255).round().byte(), expected.permute(0, 3, 1, 2))


def test_one_split_is_parted_and_columns_can_be_named(tmp_path: Path) -> None:
    columns = {"picture": pictures(12), "breed": ["pug", "boxer"] * 6, "mood": ["calm"] * 12}
    root = save(tmp_path, columns)
    datamodule = opened(root=root, label_column="breed", image_column="picture")
    assert datamodule.class_names == ["boxer", "pug"]
    assert len(datamodule.train_dataset) == 10
    assert datamodule.test_dataset.targets == [1, 0]
    assert np.array_equal(np.asarray(datamodule.test_dataset[0][0]), noise(9, 8, 3, seed=8))


def test_lists_of_classes_are_many_labels(tmp_path: Path) -> None:
    kinds = {"tags": datasets.Sequence(datasets.ClassLabel(names=["red", "round", "flat"]))}
    root = save(tmp_path, {"picture": pictures(5), "tags": [[0], [0, 2], [], [1], [2]]}, kinds)
    datamodule = opened(root=root)
    assert datamodule.likelihood == "bernoulli"
    assert datamodule.class_names == ["red", "round", "flat"]
    expected = [[1, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert torch.as_tensor(datamodule.train_dataset.targets).tolist() == expected


def test_numbers_without_names_are_classes(tmp_path: Path) -> None:
    root = save(tmp_path, {"picture": pictures(6), "label": [30, 4, 30, 4, 7, 7]})
    datamodule = opened(root=root)
    assert datamodule.class_names == ["4", "7", "30"]
    assert [*datamodule.train_dataset.targets] == [2, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "breed"}, "no column 'breed'; allowed are image, label; pass label_column="),
        ({"image_column": "photo"}, "no column 'photo'; allowed are image, label; pass image_column="),
        ({"label_column": "image"}, "column 'image': got values of type .*allowed are classes"),
    ],
)
def test_wrong_columns_are_errors_that_list_the_right_ones(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(AnnotationError, match=message):
        opened(**write_hf(tmp_path), **options)


@pytest.mark.parametrize("option", ["train_split", "test_split"])
def test_wrong_splits_are_errors_that_list_the_right_ones(tmp_path: Path, option: str) -> None:
    with pytest.raises(MissingDataError, match=rf"no split 'dev'; allowed are train, test; pass {option}="):
        opened(**write_hf(tmp_path), **{option: "dev"})


def test_what_is_no_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="was not written by save_to_disk: pass root="):
        opened(root=tmp_path)


def test_a_broken_image_is_an_error_that_names_its_row(tmp_path: Path) -> None:
    contents = []
    for number in range(6):
        save_image(tmp_path / f"{number}.png", number)
        contents.append({"bytes": (tmp_path / f"{number}.png").read_bytes(), "path": None})
    contents[1]["bytes"] = contents[1]["bytes"][:60]
    root = save(tmp_path, {"picture": contents, "label": list("ababab")}, {"label": datasets.Value("string")})
    with pytest.raises(ImageError, match=r"cannot read image in row 1 of split 0"):
        opened(root=root).train_dataset[1]
    skipping = opened(root=root, on_error="skip")
    assert len(skipping.train_dataset) == 3
    assert len(skipping.skipped["train"]) == 1


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([0, 1, -1, 0, 1, 0], datasets.ClassLabel(names=["cat", "dog"])),
        ([0, 1, -1, 0, 1, 0], datasets.Value("int64")),
        ([0, 1, None, 0, 1, 0], datasets.Value("int64")),
        (["cat", "dog", None, "cat", "dog", "cat"], datasets.Value("string")),
    ],
)
def test_images_without_a_label_are_counted_and_refused_or_left_out(
    tmp_path: Path, labels: list[Any], kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root = save(tmp_path, {"picture": pictures(6), "label": labels}, {"label": kind})
    with pytest.raises(AnnotationError, match=r"'train' .*1 of 6 images have no label, such as row 2 with"):
        opened(root=root)
    datamodule = opened(root=root, unlabelled="skip")
    assert datamodule.num_classes == 2
    train, test = datamodule.train_dataset, datamodule.test_dataset
    assert (train.targets, test.targets) == ([0, 1, 0], [1, 0])
    assert np.array_equal(np.asarray(train[2][0]), noise(9, 8, 3, seed=3))
    assert caplog.text.count("1 of 6 images have no label") == 1


def test_a_test_split_whose_labels_are_kept_back_is_an_error_and_train_can_be_parted(tmp_path: Path) -> None:
    kinds = datasets.Features(
        {"picture": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    parts = {
        name: datasets.Dataset.from_dict({"picture": pictures(10), "label": labels}, features=kinds)
        for name, labels in (("train", [0, 1] * 5), ("test", [-1] * 10))
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(AnnotationError, match=r"Split 'test' .*10 of 10 images .*take another split"):
        opened(root=tmp_path / "saved")
    datamodule = opened(root=tmp_path / "saved", test_split="train")
    assert (len(datamodule.train_dataset), len(datamodule.test_dataset)) == (8, 2)


def test_real_numbers_are_a_regression(tmp_path: Path) -> None:
    numbers = [0.5, 1.25, -1.0, 3.0, 2.0, 8.5]
    root = save(tmp_path, {"picture": pictures(6), "label": numbers, "place": [[n, 2.0] for n in numbers]})
    with pytest.raises(AnnotationError, match=r"column 'label': got values of type .*likelihood='gaussian'"):
        opened(root=root)
    datamodule = opened(root=root, likelihood="gaussian")
    assert (datamodule.likelihood, datamodule.class_names) == ("gaussian", ["label"])
    assert datamodule.train_dataset.targets[:3].tolist() == [[0.5], [1.25], [-1.0]]
    places = opened(root=root, likelihood="gaussian", label_column="place")
    assert places.class_names == ["place 0", "place 1"]
    assert places.test_dataset.targets.tolist() == [[2.0, 2.0]]
