import collections
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from replicas import inat_taxa, write_cub_inat2018, write_inat2018, write_inat_json

from t2v_lightning.data import get_datamodule
from t2v_lightning.data.benchmarks import inat_annotations
from t2v_lightning.data.benchmarks.cub_inat2018 import inat_positions
from t2v_lightning.data.benchmarks.inat_annotations import read_annotations
from t2v_lightning.data.errors import AnnotationError, MissingDataError, UnknownTaskError


def small(root: Path, counts: dict[int, int], taxa: list[dict[str, Any]] | None = None) -> Path:
    """A replica of a few categories with so many training images each, and one test image."""
    folder = root / "inat2018"
    folder.mkdir(parents=True, exist_ok=True)
    taxa = taxa or inat_taxa(orders=3)
    (folder / "categories.json").write_text(json.dumps(taxa))
    write_inat_json(folder, "train", taxa, counts)
    write_inat_json(folder, "val", taxa, dict.fromkeys(counts, 1), first_id=10**6)
    return root


def test_orders_are_sorted_by_images_and_classes_by_name(tmp_path: Path) -> None:
    # Categories 0..5 are of orders 0, 1, 2, 0, 1, 2, and named Genus<number> species<0 or 1>.
    root = small(tmp_path, {5: 2, 1: 4, 0: 1, 2: 4, 4: 2, 3: 1})
    datamodule = get_datamodule("inat2018", root=root)
    assert datamodule.task_names == ["Order002", "Order001", "Order000"]
    for task, members in enumerate(([2, 5], [1, 4], [0, 3])):
        datamodule = get_datamodule("inat2018", root=root, task_id=task)
        datamodule.setup()
        assert datamodule.class_names == [f"Genus{number} species{number // 3}" for number in members]
        content = json.loads((root / "inat2018/train2018.json").read_text())
        expected = [a["category_id"] for a in content["annotations"] if a["category_id"] in members]
        assert datamodule.train_dataset.targets == [members.index(number) for number in expected]
        assert sorted(datamodule.test_dataset.targets) == [0, 1]  # type: ignore[arg-type]


def test_orders_of_as_many_images_come_as_they_are_annotated(tmp_path: Path) -> None:
    root = small(tmp_path, {4: 2, 2: 3, 0: 3, 1: 1})
    assert get_datamodule("inat2018", root=root).task_names == ["Order001", "Order002", "Order000"]


def test_classes_are_sorted_by_name_not_by_number(tmp_path: Path) -> None:
    taxa = inat_taxa(orders=1, species=3)
    for taxon, name in zip(taxa, ("Zea mays", "Abies alba", "Malus pumila"), strict=True):
        taxon["name"] = name
    root = small(tmp_path, {0: 1, 1: 1, 2: 1}, taxa)
    datamodule = get_datamodule("inat2018", root=root)
    datamodule.setup()
    assert datamodule.class_names == ["Abies alba", "Malus pumila", "Zea mays"]
    assert datamodule.train_dataset.targets == [2, 0, 1]


def test_classes_of_living_things_are_another_level(tmp_path: Path) -> None:
    write_inat2018(tmp_path)
    taxa = inat_taxa(230)
    content = json.loads((tmp_path / "inat2018/train2018.json").read_text())
    counts = collections.Counter(taxa[a["category_id"]]["class"] for a in content["annotations"])
    datamodule = get_datamodule("inat2018", root=tmp_path, task_id=1, level="class")
    assert datamodule.task_names == [name for name, _ in counts.most_common()]
    assert datamodule.num_classes == sum(taxon["class"] == datamodule.task_name for taxon in taxa)
    assert len(datamodule.load_task("train")) == counts[datamodule.task_name]
    with pytest.raises(ValueError, match="got level='genus'; allowed are order and class"):
        get_datamodule("inat2018", level="genus")


def test_images_are_opened_from_where_the_annotations_say(tmp_path: Path) -> None:
    write_inat2018(tmp_path, orders=3, drawn=2)
    datamodule = get_datamodule("inat2018", root=tmp_path, task_id=1)
    datamodule.setup()
    name = datamodule.load_task("test").samples[2].decode()
    assert name.startswith("train_val2018/")
    expected = Image.open(tmp_path / "inat2018" / name)
    assert np.array_equal(np.asarray(datamodule.test_dataset[2][0]), np.asarray(expected))
    undrawn = get_datamodule("inat2018", root=tmp_path, task_id=2)
    undrawn.setup()
    with pytest.raises(MissingDataError, match=r"image .*train_val2018/.*\.jpg does not exist"):
        undrawn.train_dataset[0]


def test_annotations_are_read_once_and_then_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small(tmp_path, {0: 2, 3: 1, 1: 1})
    folder = root / "inat2018"
    first = read_annotations(folder)
    inat_annotations._read.cache_clear()
    monkeypatch.setattr(
        inat_annotations, "_load", lambda *args: pytest.fail("the JSON files were read again")
    )
    again = read_annotations(folder)
    assert again is not first
    assert again.taxa == first.taxa
    for split in ("train", "test"):
        assert np.array_equal(again.names[split], first.names[split])
        assert np.array_equal(again.categories[split], first.categories[split])
    assert read_annotations(folder) is again


def test_a_changed_annotation_file_is_read_again(tmp_path: Path) -> None:
    root = small(tmp_path, {0: 2, 3: 1})
    assert len(get_datamodule("inat2018", root=root).load_task("train")) == 3
    small(tmp_path, {0: 2, 3: 7})
    assert len(get_datamodule("inat2018", root=root).load_task("train")) == 9
    # As many bytes, and the time of the last change set back.
    path = root / "inat2018/train2018.json"
    before = path.stat()
    path.write_text(path.read_text().replace('"category_id": 3', '"category_id": 0', 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    labels = get_datamodule("inat2018", root=root).load_task("train").labels
    assert np.bincount(labels).tolist() == [3, 6]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"images": [{"id": 0', '"images": [{"id": 1', "lists image id 1 twice"),
        ('"image_id": 0,', '"image_id": 1,', "annotates image id 1 twice"),
        ('"image_id": 0,', '"image_id": 77,', "annotation of image 77, which is not listed"),
        ('"category_id": 3', '"category_id": 99', "annotation of category 99, which is not listed"),
        ('"annotations"', '"notes"', "does not hold lists of images and annotations"),
        ('"categories": [', '"categories": ', r"cannot read .*train2018\.json"),
    ],
)
def test_annotations_that_contradict_themselves_are_errors(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    root = small(tmp_path, {0: 2, 3: 1})
    path = root / "inat2018/train2018.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(AnnotationError, match=message):
        get_datamodule("inat2018", root=root).setup()


def test_obfuscated_categories_are_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    root = small(tmp_path, {0: 2, 3: 1})
    (root / "inat2018/categories.json").write_text(json.dumps([{"id": 0, "name": "0", "supercategory": "?"}]))
    with pytest.raises(AnnotationError, match=r"with the true names; run scripts/download_inat2018\.sh"):
        get_datamodule("inat2018", root=root).setup()


def test_images_without_annotation_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = small(tmp_path, {0: 2, 3: 1})
    path = root / "inat2018/train2018.json"
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    assert len(read_annotations(root / "inat2018").names["train"]) == 2
    assert "1 images without annotation are left out" in caplog.text


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("both")
    write_cub_inat2018(root)
    return root


def test_the_meta_task_is_25_of_cub_and_the_207_published_orders(both: Path) -> None:
    meta = get_datamodule("cub_inat2018", root=both)
    cub, inat = (get_datamodule(name, root=both) for name in ("cub200", "inat2018"))
    assert len(meta.task_names) == 232
    assert [name.split()[1] for name in meta.task_names[:25]] == cub.task_names
    assert [name.split()[1] for name in meta.task_names[25:]] == [
        inat.task_names[p] for p in inat_positions()
    ]
    assert meta.task_names[15] == "[CUB] Corvidae (aves)"
    assert meta.task_names[25].startswith("[iNat] Order000 (")
    for task, (name, own) in {3: ("cub200", 3), 25: ("inat2018", 0), 126: ("inat2018", 102)}.items():
        part = get_datamodule(name, root=both, task_id=own)
        whole = get_datamodule("cub_inat2018", root=both, task_id=task)
        for split in ("train", "test"):
            assert np.array_equal(whole.load_task(split).samples, part.load_task(split).samples)  # type: ignore[arg-type]
            assert np.array_equal(whole.load_task(split).labels, part.load_task(split).labels)  # type: ignore[arg-type]
        assert whole.class_names == part.class_names
        assert whole.family == part.family
        assert whole.taxon == part.taxon  # type: ignore[attr-defined]
    drawn = get_datamodule("cub_inat2018", root=both, task_id=25)
    drawn.setup()
    assert drawn.train_dataset[0][0].size == (14, 12)


def test_each_half_of_the_meta_task_does_without_the_other(both: Path, tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "cub").symlink_to(both / "cub")
    get_datamodule("cub_inat2018", root=tmp_path / "birds", task_id=24).setup()
    with pytest.raises(MissingDataError, match=r"run scripts/download_inat2018\.sh"):
        get_datamodule("cub_inat2018", root=tmp_path / "birds", task_id=25).setup()
    with pytest.raises(UnknownTaskError, match=r"got task_id=232 .* allowed are 0\.\.231"):
        get_datamodule("cub_inat2018", root=tmp_path / "birds", task_id=232)
    shutil.copytree(both / "inat2018", tmp_path / "rest" / "inat2018")
    get_datamodule("cub_inat2018", root=tmp_path / "rest", task_id=30).setup()
    with pytest.raises(MissingDataError, match=r"run scripts/download_cub\.sh"):
        get_datamodule("cub_inat2018", root=tmp_path / "rest", task_id=24).setup()


def test_a_part_of_inat_has_fewer_tasks(tmp_path: Path) -> None:
    write_inat2018(tmp_path, orders=30, drawn=0)
    assert len(get_datamodule("cub_inat2018", root=tmp_path).task_names) == 25 + 30
    with pytest.raises(UnknownTaskError, match=r"allowed are 0\.\.54"):
        get_datamodule("cub_inat2018", root=tmp_path, task_id=55)
