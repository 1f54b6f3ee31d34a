import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from replicas import TAXONOMY, write_cub200

from t2v_lightning.data import get_datamodule
from t2v_lightning.data.benchmarks.cub200 import cub_groups
from t2v_lightning.data.errors import AnnotationError, UnknownTaskError

FOLDER = Path("cub/CUB_200_2011")
ROWS = [{**row, "class_id": int(row["class_id"])} for row in csv.DictReader(TAXONOMY.open())]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cub")
    write_cub200(root)
    return root


def test_the_paper_has_ten_orders_then_fifteen_families_each_by_first_class() -> None:
    groups = cub_groups()
    orders, families = groups[:10], groups[10:]
    assert (len(orders), len(families)) == (10, 15)
    assert all(group.taxon["order"] == group.name != "Passeriformes" for group in orders)
    assert all(
        group.taxon["family"] == group.name and group.taxon["order"] == "Passeriformes" for group in families
    )
    for part in (orders, families):
        firsts = [group.members[0] for group in part]
        assert firsts == sorted(firsts)
    # The sizes that the taxonomy gives, counted by hand.
    assert sum(len(group.members) for group in orders) == 24 + 7 + 6 + 5 + 5 + 4 + 4 + 4 + 4 + 3
    assert sum(len(group.members) for group in families) == 133 - 6


@pytest.mark.parametrize("level", ["order", "family", "genus"])
def test_a_level_groups_all_birds(level: str) -> None:
    expected: dict[str, list[int]] = {}
    for row in ROWS:
        expected.setdefault(str(row[level]), []).append(row["class_id"] - 1)
    groups = cub_groups(level)  # type: ignore[arg-type]
    assert {g.name: g.members for g in groups} == {name: m for name, m in expected.items() if len(m) > 1}
    assert all(group.taxon["class"] == "Aves" and group.taxon["kingdom"] == "Animalia" for group in groups)


@pytest.mark.parametrize("task", [0, 9, 10, 24])
def test_a_task_has_the_official_split_of_its_species(root: Path, task: int) -> None:
    datamodule = get_datamodule("cub200", root=root, task_id=task)
    datamodule.setup()
    members = [member + 1 for member in cub_groups()[task].members]
    split = dict(line.split() for line in (root / FOLDER / "train_test_split.txt").read_text().splitlines())
    label = dict(line.split() for line in (root / FOLDER / "image_class_labels.txt").read_text().splitlines())
    paths = dict(line.split() for line in (root / FOLDER / "images.txt").read_text().splitlines())
    for flag, dataset in (("1", datamodule.train_dataset), ("0", datamodule.test_dataset)):
        expected = [i for i in paths if split[i] == flag and int(label[i]) in members]
        assert dataset.targets == [members.index(int(label[i])) for i in expected]
        image = Image.open(root / FOLDER / "images" / paths[expected[-1]])
        assert np.array_equal(np.asarray(dataset[len(expected) - 1][0]), np.asarray(image))
    assert datamodule.num_classes == len(members)


def test_classes_carry_their_names_without_numbers(root: Path) -> None:
    datamodule = get_datamodule("cub200", root=root, task_id=15)
    assert datamodule.task_name == "Corvidae"
    assert datamodule.class_names[0] == "Corvus 29"
    assert datamodule.family == "Aves"  # type: ignore[comparison-overlap]


def test_another_level_has_other_tasks(root: Path) -> None:
    datamodule = get_datamodule("cub200", root=root, task_id=3, level="order")
    assert datamodule.task_name == "Passeriformes"
    assert datamodule.num_classes == 133
    with pytest.raises(UnknownTaskError, match=r"allowed are 0\.\.10"):
        get_datamodule("cub200", root=root, task_id=11, level="order")
    with pytest.raises(ValueError, match="got level='species'; allowed are paper, order, family and genus"):
        get_datamodule("cub200", level="species")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("images.txt", "2 001", "1 001", r"images\.txt, line 2: id 1 occurs twice"),
        ("image_class_labels.txt", "7 2\n", "", r"image_class_labels\.txt has no line for image 7"),
        (
            "train_test_split.txt",
            "9 0\n",
            "9 0\n9999 1\n",
            r"train_test_split\.txt names image 9999, which images\.txt",
        ),
        ("image_class_labels.txt", "7 2\n", "7 201\n", "gives image 7 the class 201"),
        ("image_class_labels.txt", "7 2\n", "7\n", r"line 7: got '7', but a line is an id and a value"),
    ],
)
def test_lists_that_contradict_each_other_are_errors(
    root: Path, tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    for path in (root / FOLDER).iterdir():
        (folder / path.name).symlink_to(path)
    content = (folder / file).read_text()
    assert old in content
    (folder / file).unlink()
    (folder / file).write_text(content.replace(old, new, 1))
    with pytest.raises(AnnotationError, match=message):
        get_datamodule("cub200", root=tmp_path).setup()
