"""Your own texts: tables, folders of files, and datasets of Hugging Face."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from t2v_lightning.data import get_datamodule
from t2v_lightning.data.errors import AnnotationError, LabelError, MissingDataError, UnknownTaskError

ROWS = [{"text": f"note {n}", "label": "ab"[n % 2], "task": "xy"[n // 10]} for n in range(20)]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [",".join(rows[0]), *(",".join(f'"{cell}"' for cell in row.values()) for row in rows)]
    path.write_text("\n".join(lines))
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def ready(root: Path, **options: Any) -> Any:
    datamodule = get_datamodule("text", root=root, **options)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_a_table_has_texts_labels_and_tasks(write: Any, tmp_path: Path) -> None:
    path = write(tmp_path / f"notes.{'csv' if write is write_csv else 'jsonl'}", ROWS)
    found = ready(path, task_id=1)
    assert (found.task_names, found.task_name, found.family) == (["x", "y"], "y", "notes")
    assert (found.class_names, found.likelihood) == (["a", "b"], "softmax")
    assert [found.train_dataset[n] for n in (0, 7)] == [("note 10", 0), ("note 17", 1)]
    assert [found.test_dataset[n] for n in range(2)] == [("note 18", 0), ("note 19", 1)]
    assert (found.train_dataset.targets, found.train_dataset.classes) == ([0, 1] * 4, ["a", "b"])
    below = ready(tmp_path, table=path.name, task_id=1)
    assert below.train_dataset.task.samples == found.train_dataset.task.samples
    with pytest.raises(UnknownTaskError, match=r"allowed are 0\.\.1"):
        get_datamodule("text", root=path, task_id=2)


def test_batches_are_texts_and_datasets_pickle_into_workers(tmp_path: Path) -> None:
    found = ready(write_csv(tmp_path / "n.csv", ROWS[:10]), batch_size=3)
    texts, targets = next(iter(found.test_dataloader()))
    assert list(texts) == ["note 8", "note 9"]
    assert targets.tolist() == [0, 1]
    assert pickle.loads(pickle.dumps(found.train_dataset))[2] == ("note 2", 0)


def test_pairs_of_texts_and_splits(tmp_path: Path) -> None:
    rows = [
        {"q": f"q{n}", "a": f"a{n}", "y": n % 2, "split": ["train", "validation"][n // 6]} for n in range(8)
    ]
    found = ready(write_jsonl(tmp_path / "n.jsonl", rows), text_column=["q", "a"], label_column="y")
    assert found.train_dataset[1] == (("q1", "a1"), 1)
    assert [found.test_dataset[n][0] for n in range(2)] == [("q6", "a6"), ("q7", "a7")]
    (first, second), _ = next(iter(found.test_dataloader()))
    assert (list(first), list(second)) == (["q6", "q7"], ["a6", "a7"])


def test_several_labels_and_numbers(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": ["red", "red|blue", ""][n % 2], "size": n / 2} for n in range(10)]
    path = write_csv(tmp_path / "n.csv", rows)
    many = ready(path, label_separator="|")
    assert many.likelihood == "bernoulli"
    assert torch.equal(many.train_dataset[1][1], torch.tensor([1.0, 1.0]))
    sizes = ready(path, label_column="size", likelihood="gaussian")
    assert sizes.likelihood == "gaussian"
    assert sizes.train_dataset[3][1].tolist() == [1.5]
    with pytest.raises(LabelError, match="got likelihood='bernoulli'"):
        ready(path, likelihood="bernoulli")


def test_folders_of_files(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for kind in ("prose", "verse"):
            folder = tmp_path / split / kind / "deeper"
            folder.mkdir(parents=True)
            for n in range(count):
                (folder / f"{n}.txt").write_text(f"{split} {kind} {n} é", encoding="utf-8")
            (folder / "notes.md").write_text("no text")
    found = ready(tmp_path)
    assert (found.class_names, len(found.train_dataset), len(found.test_dataset)) == (
        ["prose", "verse"],
        6,
        4,
    )
    assert found.train_dataset[4] == ("train verse 1 é", 1)
    one = ready(tmp_path / "train")  # without a folder of tests
    assert (len(one.train_dataset), len(one.test_dataset)) == (4, 2)
    (tmp_path / "train" / "prose" / "deeper" / "bad.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(AnnotationError, match=r"bad\.txt is not in UTF-8"):
        ready(tmp_path)
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(MissingDataError, match=r"empty holds no \.txt file"):
        ready(tmp_path)


def test_datasets_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )

    def part(word: str, n: int) -> Any:
        rows = {"text": [f"{word} {i}" for i in range(n)], "label": [i % 2 for i in range(n)]}
        return datasets.Dataset.from_dict(rows, features=kinds)

    datasets.DatasetDict({"train": part("train", 6), "test": part("test", 4)}).save_to_disk(tmp_path / "both")
    found = ready(tmp_path / "both")
    assert (found.class_names, len(found.test_dataset)) == (["neg", "pos"], 4)
    assert found.train_dataset[3] == ("train 3", 1)
    part("train", 10).save_to_disk(tmp_path / "one")
    assert len(ready(tmp_path / "one").test_dataset) == 2


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["text,label", "a,x"], {"label_column": "kind"}, "has no column 'kind'; allowed are text, label"),
        (["text,label", "a,x"], {"text_column": "body"}, "has no column 'body'; allowed are text, label"),
        (["text,label", "a,x", ",y"], {}, r"row 3: column 'text' is empty\. Fill it or drop the row"),
        (["text,label", "a,x", "b,"], {}, "1 of 2 images have no label, such as row 3"),
        (["text,label,split", "a,x,odd"], {}, "row 2: got split 'odd'; allowed are train"),
        (["text,label,split", "a,x,test"], {}, "has no train texts of task 'n'"),
    ],
    ids=["label column", "text column", "empty text", "no label", "split", "no train"],
)
def test_tables_that_do_not_hold_a_task(lines: list[str], options: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("\n".join(lines))
    with pytest.raises(AnnotationError, match=message):
        ready(tmp_path / "n.csv", **options)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("{", "line 2: got no JSON"),
        ('{"text": "b"}', "line 2: got text; allowed is a JSON object with the keys text, label"),
        ("[1]", "line 2: got list; allowed is a JSON object"),
        ('{"text": " ", "label": "y"}', "row 2: column 'text' is empty"),
    ],
)
def test_lines_that_are_not_those_of_a_table(second: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text('{"text": "a", "label": "x"}\n' + second)
    with pytest.raises(AnnotationError, match=message):
        ready(tmp_path / "n.jsonl")


def test_a_missing_root_names_the_remedy(tmp_path: Path) -> None:
    for root in (None, tmp_path / "nowhere"):
        with pytest.raises(MissingDataError, match="pass root=<a CSV"):
            get_datamodule("text", root=root).setup()
    with pytest.raises(MissingDataError, match="holds no folder"):
        get_datamodule("text", root=tmp_path).setup()
    with pytest.raises(TypeError, match=r"allowed are .*transform, batch_size, num_workers, on_error"):
        get_datamodule("text", nonsense=1)
