"""Images, texts and saved datasets are told apart by what stands there."""

import json
from pathlib import Path

import pytest

from t2v_lightning.data.places import kind_of_path


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", "path,label\n", "image_folder"),
        ("a.csv", "text,label\n", "text"),
        ("a.tsv", "label\ttext\n", "text"),
        ("a.csv", "path,text,label\n", "image_folder"),
        ("a.csv", "", "image_folder"),
        ("a.jsonl", '\n{"text": "x", "label": 0}\n', "text"),
        ("a.jsonl", "no json\n", "image_folder"),
        ("a.parquet", "torn", "image_folder"),
        ("a.txt", "text,label\n", None),
    ],
)
def test_a_table_is_told_by_its_columns(name: str, content: str, kind: str | None, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert kind_of_path(path) == kind


def test_a_parquet_table_is_told_by_its_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["x"], "label": [0]}), tmp_path / "a.parquet")
    assert kind_of_path(tmp_path / "a.parquet") == "text"


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["cat/1.jpg", "cat/2.jpg", "cat/notes.txt"], "image_folder"),
        (["good/1.txt", "good/2.txt", "bad/cover.png"], "text"),
        (["train/good/1.txt", "test/good/2.txt"], "text"),
        (["train/cat/1.png"], "image_folder"),
        ([], "image_folder"),
    ],
)
def test_a_folder_is_told_by_most_of_its_files(files: list[str], kind: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert kind_of_path(tmp_path) == kind


@pytest.mark.parametrize("of_splits", [False, True])
def test_a_saved_dataset_is_told_by_the_types_of_its_columns(of_splits: bool, tmp_path: Path) -> None:
    part = tmp_path / "train" if of_splits else tmp_path
    part.mkdir(exist_ok=True)
    if of_splits:
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    text = {"dtype": "string", "_type": "Value"}
    for columns, kind in (
        ({"image": {"_type": "Image"}, "title": text}, "hf"),
        ({"text": text}, "text"),
        ({}, "hf"),
    ):
        label = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
        (part / "dataset_info.json").write_text(json.dumps({"features": columns | label}))
        assert kind_of_path(tmp_path) == kind
