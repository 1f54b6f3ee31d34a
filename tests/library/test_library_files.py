"""A library on disk: read as it was written, whole or not at all, and nothing outside its folder."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from library_examples import World, animals, bare
from safetensors.numpy import load_file, save_file

from t2v_lightning.library import Protocol, TaskLibrary


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "library.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    library = animals()
    library.add_expert("vit", task="digits")
    library.add_result(
        "dogs",
        "net, the large",
        float("nan"),
        failure='it said "no",\nand ended',
        protocol=Protocol("finetune", 5),
    )
    library.add_result("dogs", "vit", 1 / 3, stderr=0.1, protocol=Protocol("finetune", 5))
    library.save(tmp_path / "lib")
    return tmp_path / "lib"


def test_a_library_is_read_as_it_was_written(folder: Path) -> None:
    library = TaskLibrary(folder)
    assert library.names == ["birds", "digits", "dogs"]
    assert library.families == animals().families
    assert library.experts == {"resnet": "", "vit": "digits", "net, the large": ""}
    assert library["digits"] == bare([1.0, 4.0])
    assert library.protocols == [Protocol(), Protocol("finetune", 5)]
    third = library.results.get("dogs", "vit", Protocol("finetune", 5))
    failed = library.results.get("dogs", "net, the large", Protocol("finetune", 5))
    assert third is not None
    assert failed is not None
    assert (third.error, third.stderr) == (1 / 3, 0.1)
    assert failed.failure == 'it said "no",\nand ended'


def test_advice_is_the_same_from_the_disk_and_after_a_change(tmp_path: Path) -> None:
    world = World()
    library, centres = world.library()
    new, errors = world.task(centres[0], "new", "family 0")
    other, _ = world.task(centres[0], "other", "family 0")
    library.save(tmp_path / "lib")
    opened = TaskLibrary(tmp_path / "lib")
    assert str(opened.recommend(new)) == str(library.recommend(new))
    assert opened.nearest(new) == library.nearest(new)
    for changed in (library, opened):
        changed.add(other, {f"expert {j}": float(error) for j, error in enumerate(errors)})
    opened.save()
    assert str(TaskLibrary(tmp_path / "lib").recommend(new)) == str(library.recommend(new))


def test_a_probe_is_remembered(tmp_path: Path) -> None:
    library = TaskLibrary(tmp_path)
    probe = {"method": "montecarlo", "probe": "small"}
    library.add(type(bare([1.0]))([1.0, 2.0], [1, 1], layers={"a": slice(0, 2)}, meta=probe), name="birds")
    library.save()
    again = TaskLibrary(tmp_path)
    again.add(type(bare([1.0]))([1.0, 2.0], [1, 1], layers={"a": slice(0, 2)}, meta=probe), name="dogs")
    with pytest.raises(ValueError, match="their layout differs"):
        again.add(type(bare([1.0]))([1.0, 2.0], [1, 1], layers={"b": slice(0, 2)}, meta=probe), name="cats")


def test_saving_leaves_no_file_of_an_earlier_state(folder: Path) -> None:
    library = TaskLibrary(folder)
    library.add(bare([2.0, 2.0]), name="cars/../../trucks")
    library.save()
    library.save()
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert len(names) == 4 + 4  # lock, library, tasks, results, and an embedding each
    assert TaskLibrary(folder)["cars/../../trucks"] == bare([2.0, 2.0])


@pytest.mark.parametrize("step", range(5))
def test_a_failed_save_leaves_the_old_library(
    folder: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = TaskLibrary(folder)
    library.add(bare([2.0, 2.0]), {"resnet": 3.0}, name="cars")
    calls, replace = [0], os.replace

    def fail(*paths: Any) -> None:
        calls[0] += 1
        if calls[0] > step:
            raise OSError("disk full")
        replace(*paths)

    monkeypatch.setattr(os, "replace", fail)
    if step < 4:  # the embedding, tasks, results, library.json
        with pytest.raises(OSError, match="disk full"):
            library.save()
    else:
        library.save()
    monkeypatch.undo()
    assert TaskLibrary(folder).names == ["birds", "digits", "dogs"] + ["cars"] * (step == 4)
    library.save()
    assert TaskLibrary(folder).names == ["birds", "digits", "dogs", "cars"]


def test_two_writers_do_not_overwrite_each_other(folder: Path) -> None:
    first, second = TaskLibrary(folder), TaskLibrary(folder)
    first.add(bare([2.0, 2.0]), name="cars")
    first.save()
    second.add(bare([2.0, 3.0]), name="trucks")
    with pytest.raises(RuntimeError, match="has changed since it was opened; open it again and merge"):
        second.save()
    again = TaskLibrary(folder)
    again.merge(second)
    again.save()
    assert TaskLibrary(folder).names == ["birds", "digits", "dogs", "cars", "trucks"]


def test_saving_elsewhere_copies(folder: Path, tmp_path: Path) -> None:
    library = TaskLibrary(folder)
    library.save(tmp_path / "copy")
    assert TaskLibrary(tmp_path / "copy")["dogs"] == bare([4.0, 2.0])
    assert TaskLibrary(folder).names == TaskLibrary(tmp_path / "copy").names
    with pytest.raises(FileExistsError, match="holds a library; open it and merge"):
        TaskLibrary(folder).save(tmp_path / "copy")
    with pytest.raises(ValueError, match="in memory only"):
        animals().save()


def test_a_folder_without_a_library_is_an_empty_one(tmp_path: Path) -> None:
    assert len(TaskLibrary(tmp_path)) == 0
    TaskLibrary(tmp_path).save()
    assert len(TaskLibrary(tmp_path)) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not the file of a library"),
        ({"format_version": 2}, "format version 2; this package reads version 1"),
        ({"tasks": {"birds": 3}}, "a name in it is no text"),
        ({"tasks": ["birds"]}, "cannot be read"),
        ({"experts": {"net\x1b[31m": ""}}, r"the name of the expert is .*; it must be text on one line"),
        ({"tasks": {"birds": ""}}, "its tasks and its embeddings have different names"),
        ({"arrays": "../other.safetensors"}, "'../other.safetensors', which is outside the folder"),
        ({"results": "/etc/passwd"}, "'/etc/passwd', which is outside the folder"),
        ({"embeddings": {"birds": "a/../../x", "digits": "b", "dogs": "c"}}, "'a/../../x', which is outside"),
        ({"embeddings": None}, "cannot be read"),
    ],
)
def test_foreign_and_hostile_libraries(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        TaskLibrary(folder)
    assert "library.json" in str(caught.value)


def test_a_link_that_leads_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("secret")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    edit(folder, results="link.csv")
    with pytest.raises(ValueError, match="outside the folder"):
        TaskLibrary(folder)


@pytest.mark.parametrize(
    ("pattern", "content", "message"),
    [
        ("library.json", b"{", "library.json cannot be read"),
        ("library.json", b"[" * 100_000, "library.json cannot be read"),
        ("library.json", b"[]", "not the file of a library"),
        ("library.json", b"\xff\xfe", "library.json cannot be read"),
        ("tasks-*", b"12345678", "cannot be read: truncated, or foreign"),
        ("tasks-*", b"", "cannot be read: truncated, or foreign"),
        ("results-*", b"task,expert\n", "line 1, cannot be read: its first line is not"),
        ("results-*", b"", "cannot be read: its first line is not"),
        ("results-*", b"\xff\n", "cannot be read"),
    ],
)
def test_damaged_files(folder: Path, pattern: str, content: bytes, message: str) -> None:
    next(folder.glob(pattern)).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        TaskLibrary(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("birds,vit,probe,,,abc,,", "could not convert"),
        ("birds,vit,probe,,,20,", "7 values; expected 8"),
        ("birds,vit,probe,,,120,,", "an error in percent"),
        ("birds,vit,linear,,,20,,", "unknown kind"),
        ("birds,vit,probe,x,,20,,", "invalid literal"),
        ("birds,vit,probe,,,21,,", "is there already"),
        ("cats,vit,probe,,,21,,", "no task 'cats'"),
        ("birds,net,probe,,,21,,", "no expert 'net'"),
    ],
)
def test_damaged_rows(folder: Path, row: str, message: str) -> None:
    path = next(folder.glob("results-*"))
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(ValueError, match=rf"line 1\d, cannot be read: .*{message}"):
        TaskLibrary(folder)


def test_missing_files(folder: Path) -> None:
    next(folder.glob("embeddings/birds*")).unlink()
    with pytest.raises(FileNotFoundError, match="no embedding file at"):
        TaskLibrary(folder)["birds"]
    next(folder.glob("results-*")).unlink()
    with pytest.raises(FileNotFoundError, match="lacks its file"):
        TaskLibrary(folder)


def test_arrays_of_another_library(folder: Path, tmp_path: Path) -> None:
    one = TaskLibrary()
    one.add(bare([1.0]), name="one")
    one.save(tmp_path / "one")
    next(folder.glob("tasks-*")).write_bytes(next((tmp_path / "one").glob("tasks-*")).read_bytes())
    with pytest.raises(ValueError, match=r"fisher is float32 \[1, 1\]; expected float32 \[3, ...\]"):
        TaskLibrary(folder)


def test_embeddings_that_are_not_finite_are_told_of(folder: Path) -> None:
    path = next(folder.glob("tasks-*"))
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    arrays["fisher"][0, 0] = np.nan
    save_file(arrays, path, metadata={"format": "t2v_lightning.library"})
    with pytest.raises(ValueError, match="embeddings of the library are not finite"):
        TaskLibrary(folder).recommend(bare([4.0, 1.2]), protocol=Protocol())


def test_mean_features_are_there_for_some_tasks(tmp_path: Path) -> None:
    library, both = TaskLibrary(tmp_path), type(bare([1.0]))
    library.add(bare([1.0, 2.0]), name="without")
    library.add(both([1.0, 2.0], [1, 1], mean_features=[3.0, -4.0, 5.0]), name="with")
    library.save()
    known = TaskLibrary(tmp_path)._contents.rows.mean_features
    assert known is not None
    np.testing.assert_array_equal(known, [[np.nan] * 3, [3, -4, 5]])
