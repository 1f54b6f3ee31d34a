"""What becomes of a benchmark some of whose images cannot be read."""

import logging
from pathlib import Path

import pytest
import torch
from replicas import write_cub200, write_image_folder

from t2v_lightning.data import get_datamodule
from t2v_lightning.data.errors import ImageError, MissingDataError


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A folder of images of which two are broken and one class has but one."""
    write_image_folder(tmp_path)
    (tmp_path / "colours" / "blue" / "3.png").write_bytes(b"")
    whole = (tmp_path / "colours" / "red" / "4.png").read_bytes()
    (tmp_path / "colours" / "red" / "4.png").write_bytes(whole[:-60])
    return tmp_path


def test_an_unreadable_image_is_an_error_when_it_is_opened(damaged: Path) -> None:
    datamodule = get_datamodule("image_folder", root=damaged, task_id=0)
    datamodule.setup()
    with pytest.raises(ImageError, match=r"cannot read image .*blue/3\.png"):
        [datamodule.train_dataset[i] for i in range(len(datamodule.train_dataset))]
    assert datamodule.skipped == {}


def test_unreadable_images_are_skipped_and_counted_when_asked(
    damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    datamodule = get_datamodule("image_folder", root=damaged, task_id=0, on_error="skip", batch_size=3)
    with caplog.at_level(logging.WARNING):
        datamodule.setup()
    skipped = [message for messages in datamodule.skipped.values() for message in messages]
    assert len(skipped) == 2
    assert any("blue/3.png" in message for message in skipped)
    assert any("red/4.png" in message for message in skipped)
    assert sum(map(len, (datamodule.train_dataset, datamodule.test_dataset))) == 45 - 2
    assert "images cannot be read and are left out" in caplog.text
    assert "3.png" in caplog.text
    seen = [
        images
        for loader in (datamodule.train_dataloader(), datamodule.test_dataloader())
        for images, _ in loader
    ]
    assert len(torch.cat(seen)) == 43
    datamodule.setup()
    assert len(datamodule.train_dataset) + len(datamodule.test_dataset) == 43


def test_a_class_that_loses_all_its_images_keeps_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image_folder(tmp_path)
    for path in (tmp_path / "shapes" / "cube").iterdir():
        path.write_bytes(b"")
    datamodule = get_datamodule("image_folder", root=tmp_path, task_id=1, on_error="skip")
    with caplog.at_level(logging.WARNING):
        datamodule.setup()
    assert datamodule.class_names == ["cone", "cube", "tube"]
    assert set(datamodule.train_dataset.targets) == {0, 2}
    assert "classes without any image left: cube" in caplog.text


def test_a_list_that_names_missing_images_is_an_error_at_once(tmp_path: Path) -> None:
    write_cub200(tmp_path)
    gone = sorted((tmp_path / "cub/CUB_200_2011/images").glob("003.*/*_0000_*"))[0]
    gone.unlink()
    with pytest.raises(
        MissingDataError, match=rf"1 of the 12 train images .* do not exist, such as .*{gone.name}"
    ):
        get_datamodule("cub200", root=tmp_path).setup()
    patient = get_datamodule("cub200", root=tmp_path, on_error="skip")
    patient.setup()
    assert len(patient.train_dataset) == 11
    assert [gone.name in message for message in patient.skipped["train"]] == [True]


def test_a_class_with_one_image_is_only_in_train(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    for path in list((tmp_path / "colours" / "red").iterdir())[1:]:
        path.unlink()
    datamodule = get_datamodule("image_folder", root=tmp_path)
    datamodule.setup()
    assert datamodule.train_dataset.targets.count(2) == 1  # type: ignore[union-attr]
    assert datamodule.test_dataset.targets.count(2) == 0  # type: ignore[union-attr]
    assert datamodule.num_classes == 3
