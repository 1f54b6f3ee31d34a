import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replicas import write_imat2018_fashion

from t2v_lightning.data import get_datamodule
from t2v_lightning.data.errors import AnnotationError, MissingDataError

FOLDER = Path("imat2018/fashion")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imat")
    write_imat2018_fashion(root)
    return root


def annotations(root: Path, split: str) -> dict[str, list[int]]:
    content = json.loads((root / FOLDER / f"{split}.json").read_text())
    return {a["imageId"]: [int(label) for label in a["labelId"]] for a in content["annotations"]}


def lines(root: Path) -> list[list[str]]:
    return list(csv.reader((root / FOLDER / "labels.csv").open()))[1:]


@pytest.mark.parametrize("attribute", [0, 94, 227])
def test_an_attribute_is_a_task_of_two_classes(root: Path, attribute: int) -> None:
    datamodule = get_datamodule("imat2018fashion", root=root, task_id=attribute)
    datamodule.setup()
    assert len(datamodule.task_names) == 228
    assert (datamodule.likelihood, datamodule.num_classes) == ("softmax", 2)
    assert datamodule.class_names == [f"not label {attribute + 1}", f"label {attribute + 1}"]
    for split, dataset in (("train", datamodule.train_dataset), ("validation", datamodule.test_dataset)):
        expected = [int(attribute + 1 in labels) for labels in annotations(root, split).values()]
        assert dataset.targets == expected
        assert 0 < sum(expected) < len(expected)
        assert dataset[1][0].size == (12, 10)


def test_a_type_is_a_task_of_many_labels(root: Path) -> None:
    names = get_datamodule("imat2018_fashion", root=root, level="type").task_names
    kinds = {int(line[1]): line[3] for line in lines(root)}
    assert names == [kinds[kind] for kind in (2, 3, 4, 5, 6, 8, 9)]
    for task, kind in ((0, 2), (5, 8)):
        datamodule = get_datamodule("imat2018_fashion", root=root, task_id=task, level="type")
        datamodule.setup()
        assert datamodule.likelihood == "bernoulli"
        own = [int(line[0]) for line in lines(root) if int(line[1]) == kind]
        assert datamodule.class_names == [f"label {number}" for number in own]
        rows = [[int(number in labels) for number in own] for labels in annotations(root, "train").values()]
        expected = torch.tensor([row for row in rows if any(row)], dtype=torch.float32)
        assert torch.equal(torch.as_tensor(datamodule.train_dataset.targets), expected)


def test_categories_are_pants_shoes_and_the_rest(root: Path) -> None:
    table = lines(root)
    articles = {
        "pants": [int(line[0]) for line in table if line[1] == "1" and line[4] == "yes"],
        "shoes": [int(line[0]) for line in table if line[1] == "1" and line[5] == "yes"],
        "other": [int(line[0]) for line in table if line[1] == "1" and line[4] == line[5] == "no"],
    }
    for task, (name, own) in enumerate(articles.items()):
        datamodule = get_datamodule("imat2018_fashion", root=root, task_id=task, level="category")
        datamodule.setup()
        assert (datamodule.task_name, datamodule.likelihood) == (name, "softmax")
        found = [
            [own.index(label) for label in labels if label in own]
            for labels in annotations(root, "train").values()
        ]
        assert datamodule.train_dataset.targets == [numbers[0] for numbers in found if len(numbers) == 1]
        assert datamodule.num_classes == len(own)


def test_annotations_are_cached(root: Path) -> None:
    get_datamodule("imat2018_fashion", root=root).prepare_data()
    assert (root / FOLDER / ".t2v_lightning" / "train-1.npz").exists()


def test_another_level_is_an_error() -> None:
    with pytest.raises(ValueError, match="got level='kind'; allowed are attribute, type and category"):
        get_datamodule("imat2018_fashion", level="kind")


def test_labels_of_one_name_are_told_apart(tmp_path: Path) -> None:
    write_imat2018_fashion(tmp_path)
    path = tmp_path / FOLDER / "labels.csv"
    path.write_text(
        path.read_text()
        .replace("label 2,", "black,")
        .replace("label 5,", "black,")
        .replace("label 11,", "black,")
    )
    names = get_datamodule("imat2018_fashion", root=tmp_path).task_names
    assert [names[n] for n in (1, 4, 10)] == [
        "black (shopping:color) 2",
        "black (shopping:neckline)",
        "black (shopping:color) 11",
    ]
    assert len(set(names)) == 228


def edited(root: Path, file: str, change: Any) -> None:
    path = root / FOLDER / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].append(c["images"][0]), "lists an imageId more than once"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "annotates imageId 1 twice"),
        (lambda c: c["images"].pop(0), "annotates imageId 1 but does not list it"),
        (lambda c: c.pop("annotations"), "cannot read"),
        (lambda c: c["annotations"][0].update(labelId=["70000"]), "cannot read"),
    ],
)
def test_annotations_that_contradict_themselves_are_errors(tmp_path: Path, change: Any, message: str) -> None:
    write_imat2018_fashion(tmp_path)
    edited(tmp_path, "train.json", change)
    with pytest.raises(AnnotationError, match=rf"train\.json.*{message}|{message}.*train\.json"):
        get_datamodule("imat2018_fashion", root=tmp_path).setup()


def test_bad_labels_are_errors_that_name_the_line(tmp_path: Path) -> None:
    write_imat2018_fashion(tmp_path)
    path = tmp_path / FOLDER / "labels.csv"
    whole = path.read_text()
    for old, new, message in (
        ("\n3,", "\n2,", r"labels\.csv, line 4: label id 2 occurs twice"),
        ("\n3,", "\nthree,", r"labels\.csv, line 4: got 'three,"),
    ):
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(AnnotationError, match=message):
            get_datamodule("imat2018_fashion", root=tmp_path, task_id=0)


def test_pictures_that_were_never_fetched_are_named(tmp_path: Path) -> None:
    write_imat2018_fashion(tmp_path)
    (tmp_path / FOLDER / "train" / "7.jpg").unlink()
    with pytest.raises(MissingDataError, match=r"1 of the 240 train images .*train/7\.jpg"):
        get_datamodule("imat2018_fashion", root=tmp_path).setup()
    datamodule = get_datamodule("imat2018_fashion", root=tmp_path, on_error="skip")
    datamodule.setup()
    assert len(datamodule.train_dataset) == 239
    assert np.sum(datamodule.train_dataset.targets) > 0
