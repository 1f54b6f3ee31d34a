import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from replicas import save_image, write_image_folder

from t2v_lightning.data import ImageFolder, TaskDataModule, get_datamodule
from t2v_lightning.data.errors import (
    AnnotationError,
    DataError,
    LabelError,
    MissingDataError,
    UnknownTaskError,
)
from t2v_lightning.data.images import image_suffixes


def opened(**options: Any) -> TaskDataModule:
    datamodule = get_datamodule("image_folder", **options)
    datamodule.setup()
    return datamodule


def draw(root: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        save_image(root / name, seed)


def files(task: Any) -> list[str]:
    return [name.decode() for name in task.samples]


def test_a_folder_a_class(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{name}/{n:02d}.PNG" for name in ("dog", "cat") for n in range(10)), "cat/deep/x.jpg")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.md").touch()
    datamodule = opened(root=tmp_path)
    assert datamodule.task_names == [tmp_path.name]
    assert datamodule.class_names == ["cat", "dog"]
    train, test = datamodule.load_task("train"), datamodule.load_task("test")
    # Every fifth image of each class.
    assert files(test) == [f"{name}/{n:02d}.PNG" for name in ("cat", "dog") for n in (4, 9)]
    expected = [f"cat/{n:02d}.PNG" for n in range(10) if n not in (4, 9)] + ["cat/deep/x.jpg"]
    assert files(train)[:9] == expected
    assert datamodule.train_dataset.targets == [0] * 9 + [1] * 8
    image = Image.open(tmp_path / "cat/00.PNG")
    assert np.array_equal(np.asarray(datamodule.train_dataset[0][0]), np.asarray(image))


def test_every_which_image_is_held_out_can_be_said(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{name}/{n}.png" for name in "ab" for n in range(9)))
    assert len(opened(root=tmp_path, test_every=3).test_dataset) == 6


@pytest.mark.parametrize("test_name", ["test", "val", "Validation"])
def test_folders_of_splits_are_the_splits(tmp_path: Path, test_name: str) -> None:
    draw(tmp_path, "train/cat/1.png", "train/dog/1.png", "train/dog/2.png", f"{test_name}/dog/3.png")
    draw(tmp_path, f"{test_name}/cat/4.png", f"{test_name}/eel/5.png")
    datamodule = opened(root=tmp_path)
    assert files(datamodule.load_task("train")) == ["train/cat/1.png", "train/dog/1.png", "train/dog/2.png"]
    assert files(datamodule.load_task("test")) == [f"{test_name}/cat/4.png", f"{test_name}/dog/3.png"]
    assert datamodule.test_dataset.targets == [0, 1]


def test_nested_folders_are_tasks(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    datamodule = opened(root=tmp_path, task_id=1)
    assert datamodule.task_names == ["colours", "shapes"]
    assert datamodule.task_name == "shapes"
    assert datamodule.class_names == ["cone", "cube", "tube"]
    assert len(datamodule.train_dataset) + len(datamodule.test_dataset) == 45
    with pytest.raises(UnknownTaskError, match=r"got task_id=2 .*\(0: colours, 1: shapes\)"):
        get_datamodule("image_folder", root=tmp_path, task_id=2)


@pytest.mark.parametrize("order", ["train/one/{}", "one/train/{}"])
def test_tasks_may_have_splits_on_top_or_inside(tmp_path: Path, order: str) -> None:
    for split in ("train", "test"):
        for task in ("one", "two"):
            path = order.replace("train", split).replace("one", task)
            draw(tmp_path, path.format("a/1.png"), path.format("b/2.png"))
    datamodule = opened(root=tmp_path, task_id=0)
    assert datamodule.task_names == ["one", "two"]
    assert files(datamodule.load_task("test")) == [
        order.replace("train", "test").format(name) for name in ("a/1.png", "b/2.png")
    ]


def test_an_empty_class_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "c").mkdir()
    with pytest.raises(MissingDataError, match=r"/c holds no image .*remove the folder"):
        opened(root=tmp_path)


def test_links_to_folders_are_followed_and_loops_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    draw(root, "cat/1.png", "cat/own/2.png", "dog/3.png")
    draw(elsewhere, "4.png", "deep/5.png")
    for link, target in (
        ("cat/more", elsewhere),
        ("dog/more", elsewhere),
        ("cat/again", elsewhere / "deep"),
        ("cat/a", root / "cat" / "own"),
        ("cat/round", root / "cat"),
        ("cat/up", root),
    ):
        (root / link).symlink_to(target, target_is_directory=True)
    (elsewhere / "back").symlink_to(elsewhere, target_is_directory=True)
    for link in ("cow", "dog/gone"):
        (root / link).symlink_to(tmp_path / "unplugged", target_is_directory=True)
    datamodule = opened(root=root, test_every=99)
    images = files(datamodule.load_task("train")) + files(datamodule.load_task("test"))
    assert sorted(images) == [
        "cat/1.png", "cat/again/5.png", "cat/more/4.png", "cat/own/2.png", "dog/3.png", "dog/more/4.png",
        "dog/more/deep/5.png",
    ]  # fmt: skip
    assert "left out links to folders that are there already (6), such as" in caplog.text
    assert "left out links that lead nowhere (2), such as dog/gone" in caplog.text


def test_a_link_to_an_image_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    draw(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "dog" / "1.png").symlink_to(tmp_path / "gone.png")
    dataset = opened(root=tmp_path, test_every=99).train_dataset
    with pytest.raises(MissingDataError, match=r"dog/1\.png does not exist"):
        [dataset[n] for n in range(len(dataset))]


def test_hidden_folders_never_count_and_what_pillow_reads_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path, "cat/1.png", "dog/2.png", "loose.png", "cat/.ipynb_checkpoints/1.png", "cat/@eaDir/1.png")
    draw(tmp_path, "@eaDir/3.png", "dog/.4.png")
    picture = Image.open(tmp_path / "cat/1.png").convert("RGB")
    endings = ["JPE", *(["avif"] if ".avif" in image_suffixes() else []), "jfif", "tga"]
    for ending in endings:
        picture.save(tmp_path / f"dog/5.{ending}")
    for name in ("cat/notes.txt", "dog/thesis.pdf", "dog/table.h5", "dog/Thumbs.db", "dog/.DS_Store"):
        (tmp_path / name).touch()
    datamodule = opened(root=tmp_path, test_every=99)
    assert datamodule.class_names == ["cat", "dog"]
    images = files(datamodule.load_task("train")) + files(datamodule.load_task("test"))
    assert sorted(images) == ["cat/1.png", "dog/2.png", *(f"dog/5.{ending}" for ending in endings)]
    assert {datamodule.train_dataset[n][0].size for n in range(len(images) - 1)} == {picture.size}
    for said in (
        "left out files that are no images (3), such as cat/notes.txt",
        "left out hidden folders (3), such as cat/.ipynb_checkpoints",
        "left out images beside the folders of classes (1), such as loose.png",
    ):
        assert said in caplog.text


def write_table(path: Path, rows: list[list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(rows)
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra hf")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path


IMAGES = [f"img/{n}.png" for n in range(8)]
SPLITS = ["train"] * 5 + ["test", "val", "Test"]
KINDS = ["10", "9", "10", "9", "10", "9", "10", "9"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw(tmp_path, *IMAGES)
    return tmp_path


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("as_root", [True, False])
def test_a_table_of_files_and_labels(root: Path, kind: str, as_root: bool) -> None:
    path = root / f"list.{kind}"
    if kind == "parquet":
        write_parquet(path, {"path": IMAGES, "label": [int(k) for k in KINDS], "split": SPLITS})
    else:
        write_table(path, [["path", "label", "split"], *map(list, zip(IMAGES, KINDS, SPLITS, strict=True))])
    datamodule = opened(root=path) if as_root else opened(root=root, table=path.name)
    assert datamodule.class_names == ["9", "10"]
    assert datamodule.train_dataset.targets == [1, 0, 1, 0, 1]
    assert files(datamodule.load_task("test")) == IMAGES[5:]
    assert (datamodule.task_name, datamodule.likelihood) == ("list", "softmax")
    image = Image.open(root / IMAGES[6])
    assert np.array_equal(np.asarray(datamodule.test_dataset[1][0]), np.asarray(image))


def test_absolute_paths_other_columns_and_tasks(root: Path) -> None:
    rows = [[str(root / name), f"k{n % 2}", f"task {n % 4 // 2}"] for n, name in enumerate(IMAGES)]
    path = write_table(root / "t.csv", [["file", "kind", "of"], *rows])
    columns = {"image_column": "file", "label_column": "kind", "task_column": "of", "test_every": 2}
    datamodule = opened(root=path, task_id=1, **columns)
    assert datamodule.task_names == ["task 0", "task 1"]
    assert files(datamodule.load_task("train")) == [str(root / IMAGES[n]) for n in (2, 3)]
    assert files(datamodule.load_task("test")) == [str(root / IMAGES[n]) for n in (6, 7)]


def test_columns_of_0_and_1_are_many_labels(root: Path) -> None:
    flags = [[n % 2, int(n > 3)] for n in range(8)]
    rows = [[name, *flag] for name, flag in zip(IMAGES, flags, strict=True)]
    path = write_table(root / "t.csv", [["path", "red", "round"], *rows])
    datamodule = opened(root=path, label_column=["red", "round"])
    assert datamodule.likelihood == "bernoulli"
    assert datamodule.class_names == ["red", "round"]
    expected = torch.tensor([flag for n, flag in enumerate(flags) if n != 4], dtype=torch.float32)
    assert torch.equal(torch.as_tensor(datamodule.train_dataset.targets), expected)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_lists_of_labels_are_many_labels(root: Path, kind: str) -> None:
    lists = [["red"], ["red", "round"], [], ["flat"], ["round"], ["flat", "red"], ["red"], ["round"]]
    if kind == "parquet":
        path = write_parquet(root / "t.parquet", {"path": IMAGES, "label": lists})
        options: dict[str, Any] = {}
    else:
        cells = [[name, " | ".join(labels) or "|"] for name, labels in zip(IMAGES, lists, strict=True)]
        path, options = write_table(root / "t.csv", [["path", "label"], *cells]), {"label_separator": "|"}
    datamodule = opened(root=path, **options)
    assert datamodule.likelihood == "bernoulli"
    assert datamodule.class_names == ["flat", "red", "round"]
    rows = torch.as_tensor(datamodule.train_dataset.targets).tolist()
    assert rows[:4] == [[0, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [["file", "label"], ["img/0.png", "a"]],
            {},
            "has no column 'path'; allowed are file, label. Name those of your table by image_column= and label_column",
        ),
        (
            [["path", "label"], ["img/0.png", "a"], ["img/0.png", "b"]],
            {},
            r"image img/0\.png occurs more than once",
        ),
        (
            [["path", "label"], ["img/0.png", "a"], ["img/1.png", ""]],
            {},
            "column 'label': 1 of 2 images have no label, such as row 3 with ''",
        ),
        ([["path", "label"], ["img/0.png", "a"], ["img/1.png"]], {}, "row 3: got 1 cells for 2 columns"),
        (
            [["path", "label"], ["img/0.png", "a"], ["img/99.png", "b"]],
            {},
            r"1 of the 2 train .* such as .*img/99\.png",
        ),
        (
            [["path", "label", "split"], ["img/0.png", "a", "dev"]],
            {},
            "row 2: got split 'dev'; allowed are train",
        ),
        ([["path", "label", "split"], ["img/0.png", "a", "test"]], {}, "has no train images of task 't'"),
        (
            [["path", "label", "split"], ["img/0.png", "a", "train"], ["img/0.png", "a", "test"]],
            {},
            r"image img/0\.png occurs more than once",
        ),
        ([["path", "label", "label"]], {}, "give each its own name"),
        ([], {}, "give each its own name"),
        ([["path", "red"], ["img/0.png", "2"]], {"label_column": ["red"]}, "row 2: got '2' in column 'red'"),
    ],
)
def test_bad_tables_are_errors_that_name_the_row(
    root: Path, rows: list[list[str]], options: dict[str, Any], message: str
) -> None:
    path = write_table(root / "t.csv", rows)
    with pytest.raises((AnnotationError, MissingDataError), match=message):
        opened(root=path, **options)


def test_other_tables_are_errors(root: Path) -> None:
    (root / "t.xlsx").touch()
    with pytest.raises(AnnotationError, match=r"allowed are files that end in \.csv, \.tsv, \.parquet"):
        opened(root=root, table="t.xlsx")
    with pytest.raises(MissingDataError, match=r"table .*nowhere\.csv does not exist"):
        opened(root=root, table="nowhere.csv")
    pytest.importorskip("pyarrow", reason="Parquet needs the extra hf")
    (root / "t.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"cannot read table .*t\.parquet"):
        opened(root=root / "t.parquet")


def table_of(root: Path, kind: str, labels: list[Any], *more: list[Any]) -> Path:
    """A table of the first images with one column of labels; `more` are columns of other names."""
    columns = dict(zip(("path", "label", *"abc"), [IMAGES[: len(labels)], labels, *more], strict=False))
    if kind == "parquet":
        return write_parquet(root / "t.parquet", columns)
    return write_table(root / f"t.{kind}", [[*columns], *map(list, zip(*columns.values(), strict=True))])


NO_LABEL = [
    ("csv", ["0", "1", "", "0", "1", "-1", "0", "NaN"], [2, 5, 7]),
    ("tsv", ["cat", "dog", " ", "cat", "dog", "-1", "cat", "dog"], [2, 5]),
    ("parquet", [0.0, 1.0, float("nan"), 0.0, 1.0, None, 0.0, 1.0], [2, 5]),
    ("parquet", [0, 1, -1, 0, 1, 0, 1, 1], [2]),
    ("parquet", [["a"], [], ["a", None], ["b"], None, ["b"], [], ["a"]], [2, 4]),
]


@pytest.mark.parametrize(("kind", "labels", "missing"), NO_LABEL)
def test_images_without_a_label_are_counted_and_refused_or_left_out(
    root: Path, kind: str, labels: list[Any], missing: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    path = table_of(root, kind, labels)
    message = rf"{len(missing)} of 8 images have no label, such as row {missing[0] + 2} with"
    with pytest.raises(AnnotationError, match=message + r" .*pass unlabelled='skip'"):
        opened(root=path)
    datamodule = opened(root=path, unlabelled="skip", test_every=9)
    kept = files(datamodule.load_task("train")) + files(datamodule.load_task("test"))
    assert sorted(kept) == [name for number, name in enumerate(IMAGES) if number not in missing]
    assert datamodule.num_classes == 2
    assert f"{len(missing)} of 8 images have no label" in caplog.text


def test_minus_one_and_one_are_two_classes(root: Path) -> None:
    assert opened(root=table_of(root, "csv", [-1, 1] * 4)).class_names == ["-1", "1"]
    assert opened(root=table_of(root, "csv", [-2, -1, 0, 1] * 2)).class_names == ["-2", "-1", "0", "1"]


def test_labels_that_are_all_kept_back_are_an_error(root: Path) -> None:
    for unlabelled in ("raise", "skip"):
        with pytest.raises(AnnotationError, match=r"8 of 8 images .*labels that are kept back make no task"):
            opened(root=table_of(root, "csv", [-1] * 8), unlabelled=unlabelled)


def test_an_empty_task_or_file_name_is_an_error(root: Path) -> None:
    tasks = write_parquet(root / "t.parquet", {"path": IMAGES, "label": KINDS, "task": ["a", None] * 4})
    with pytest.raises(AnnotationError, match="row 3: column 'task' is empty"):
        opened(root=tasks)
    names = write_parquet(root / "n.parquet", {"path": [*IMAGES[:7], None], "label": KINDS})
    with pytest.raises(AnnotationError, match="row 9: column 'path' is empty"):
        opened(root=names)


def test_real_numbers_are_no_classes_but_a_regression(root: Path) -> None:
    ages = [21.5, 34.0, 55.25, 60.0, 21.5, 18.0, 40.5, -1.0]
    path = table_of(root, "csv", ages, [0.5 * age for age in ages])
    with pytest.raises(AnnotationError, match=r"real numbers such as 21\.5 .*likelihood='gaussian'"):
        opened(root=path)
    datamodule = opened(root=path, likelihood="gaussian")
    assert (datamodule.likelihood, datamodule.class_names) == ("gaussian", ["label"])
    train = [age for number, age in enumerate(ages) if number != 4]
    assert torch.as_tensor(datamodule.train_dataset.targets).tolist() == [[age] for age in train]
    assert datamodule.train_dataset[1][1].tolist() == [34.0]
    both = opened(root=path, likelihood="gaussian", label_column=["a", "label"])
    assert both.class_names == ["a", "label"]
    assert both.test_dataset.targets[0].tolist() == [10.75, 21.5]


def test_a_regression_needs_numbers(root: Path) -> None:
    with pytest.raises(AnnotationError, match=r"got 'cat' for image 0; allowed .* are finite numbers"):
        opened(root=table_of(root, "csv", ["cat", "2"] * 4), likelihood="gaussian")
    with pytest.raises(AnnotationError, match="1 of 8 images have no label"):
        opened(root=table_of(root, "csv", ["1.5"] * 7 + [""]), likelihood="gaussian")
    draw(root, "folder/a/1.png", "folder/b/2.png")
    with pytest.raises(LabelError, match="likelihood='gaussian' for a tree of folders"):
        opened(root=root / "folder", likelihood="gaussian")


def test_a_likelihood_that_the_labels_do_not_have_is_an_error(root: Path) -> None:
    path = table_of(root, "csv", KINDS)
    with pytest.raises(LabelError, match=r"likelihood='bernoulli' for table .*one class an image"):
        opened(root=path, likelihood="bernoulli")
    assert opened(root=path, likelihood="softmax").num_classes == 2
    for options in ({"likelihood": "poisson"}, {"unlabelled": "drop"}):
        with pytest.raises(ValueError, match=r"got (likelihood|unlabelled)='\w+'; allowed are"):
            opened(root=path, **options)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_in_unicode_are_read(root: Path, encoding: str) -> None:
    path = root / "t.CSV"
    lines = [
        "path,label",
        *(f"{name},{kind}" for name, kind in zip(IMAGES, ["Köln", "Ōsaka"] * 4, strict=True)),
    ]
    path.write_text("\r\n".join(lines), encoding=encoding)
    assert opened(root=path).class_names == ["Köln", "Ōsaka"]


def test_a_table_in_another_encoding_is_an_error_that_names_file_and_line(root: Path) -> None:
    path = root / "t.csv"
    path.write_text(f"path,label\n{IMAGES[0]},a\n{IMAGES[1]},Köln\n", encoding="latin-1")
    with pytest.raises(
        AnnotationError, match=r"t\.csv, line 3: got bytes that are not UTF-8, such as 0xf6; allowed"
    ):
        opened(root=path)
    path.write_bytes("path,label\nimg/0.png,a\n".encode("utf-16-le"))
    with pytest.raises(AnnotationError, match=r"t\.csv"):
        opened(root=path)


def test_a_tree_of_several_tasks_names_them_where_none_was_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("shapes/round", "shapes/square", "colours/red", "colours/blue"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{number}.png")
    assert ImageFolder(tmp_path, task_id=1).task_name == "shapes"
    assert caplog.messages == []
    assert ImageFolder(tmp_path).task_name == "colours"
    assert f"{tmp_path} holds 2 tasks (0: colours, 1: shapes), of which the first is taken" in caplog.text
