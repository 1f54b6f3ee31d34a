"""Embedding: checks, conveniences, and files that are read as they were written."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from t2v_lightning.embedding import Embedding


@pytest.fixture
def embedding() -> Embedding:
    generator = np.random.default_rng(0)
    sums = generator.random((16, 6)).astype(np.float32)
    return Embedding(
        fisher=generator.random(6),
        scale=np.full(6, 2.0),
        stderr=generator.random(6),
        layers={"conv1": slice(0, 2), "layer1.conv": slice(2, 6)},
        meta={"task_name": "digits", "method": "montecarlo", "seed": 3, "versions": {"torch": "2.15"}},
        group_sums=sums,
        group_weights=generator.random(16),
        mean_features=generator.normal(size=4),
    )


def test_arrays_are_copied_and_cast() -> None:
    fisher = np.ones(3, dtype=np.float32)
    embedding = Embedding(fisher, [1, 2, 3])
    fisher[:] = 7
    assert embedding.fisher.tolist() == [1, 1, 1]
    assert embedding.fisher.dtype == embedding.scale.dtype == np.float64


def test_conveniences(embedding: Embedding) -> None:
    assert len(embedding) == 6
    assert embedding.norm == pytest.approx(np.sqrt((embedding.fisher**2).sum()))
    assert embedding.stderr is not None
    expected = np.sqrt((embedding.stderr**2).sum() / (embedding.fisher**2).sum())
    assert embedding.relative_stderr == pytest.approx(expected)
    assert embedding.task_name == "digits"
    assert embedding.layer("layer1.conv").tolist() == embedding.fisher[2:].tolist()
    assert len(repr(embedding)) < 80
    with pytest.raises(KeyError, match=r"no layer 'fc' in this embedding; its layers: conv1, layer1\.conv"):
        embedding.layer("fc")


def test_missing_things_have_plain_answers() -> None:
    embedding = Embedding([0.0, 0.0], [1, 1])
    assert embedding.relative_stderr is None
    assert embedding.task_name == ""
    assert Embedding([0.0], [1], stderr=[1.0]).relative_stderr == float("inf")
    assert Embedding([1.0], [1], meta={"dataset": {"name": "cub"}}).task_name == ""


def test_layers_come_in_the_order_of_their_entries() -> None:
    embedding = Embedding([1, 2, 3], [1, 1, 1], layers={"b": slice(1, 3), "a": slice(np.int64(0), 1)})
    assert list(embedding.layers) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fisher": [1.0, -1.0, 0.0]}, "fisher has 1 entries of 3 below 0"),
        ({"fisher": [1.0, np.nan, np.inf]}, "fisher has 2 entries of 3 that are not finite"),
        ({"fisher": [[1.0, 2.0, 3.0]]}, r"fisher has shape \[1, 3\]; expected \[D\]"),
        ({"fisher": []}, "no entries"),
        ({"fisher": "abc"}, "fisher must hold numbers"),
        ({"fisher": [1, 2]}, r"scale has shape \[3\]; expected \[2\]"),
        ({"scale": [1, 0, 1]}, "scale has entries that are 0"),
        ({"stderr": [1.0]}, r"stderr has shape \[1\]; expected \[3\]"),
        ({"group_weights": [1.0]}, "belong together"),
        (
            {"group_weights": [1.0], "group_sums": np.ones((2, 3))},
            r"group_sums has shape \[2, 3\]; expected \[1, 3\]",
        ),
        ({"mean_features": [1.0, np.inf]}, "mean_features has 1 entries of 2 that are not finite"),
        ({"mean_features": [[1.0]]}, r"mean_features has shape \[1, 1\]; expected \[P\]"),
        ({"layers": {"a": slice(0, 2)}}, r"cover \[0, 3\) once, without gaps: they end at 2"),
        (
            {"layers": {"a": slice(0, 2), "b": slice(1, 3)}},
            r"'b' is \[1, 3\) where the layers before it end at 2",
        ),
        ({"layers": {"a": slice(0, 1), "b": slice(2, 3)}}, r"'b' is \[2, 3\)"),
        ({"layers": {"a": slice(0, 3, 2)}}, "without a step"),
        ({"layers": {"a": slice(None, 3)}}, r"must map to slice\(start, stop\)"),
        ({"layers": {"a": 3}}, r"must map to slice\(start, stop\)"),
        ({"meta": {"probe": object()}}, "meta takes what JSON can hold"),
    ],
)
def test_bad_fields_are_refused(change: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"fisher": [1, 2, 3], "scale": [1, 1, 1]}
    with pytest.raises(ValueError, match=message):
        Embedding(**(fields | change))


def test_equality(embedding: Embedding) -> None:
    assert embedding == dataclasses.replace(embedding)
    assert embedding != dataclasses.replace(embedding, fisher=np.nextafter(embedding.fisher, 9))
    assert embedding != dataclasses.replace(embedding, stderr=None)
    assert embedding != dataclasses.replace(embedding, layers={})
    assert embedding != dataclasses.replace(embedding, meta={})
    assert embedding != "an embedding"


def test_round_trip_is_exact(embedding: Embedding, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "digits.safetensors"
    embedding.save(path)
    loaded = Embedding.load(str(path))
    assert loaded == embedding
    assert loaded.layers == {"conv1": slice(0, 2), "layer1.conv": slice(2, 6)}
    assert [file.name for file in path.parent.iterdir()] == ["digits.safetensors"]


def test_a_file_of_version_1_has_no_mean_features(tmp_path: Path) -> None:
    save_file(ONES, tmp_path / "old.safetensors", metadata=HEADER)
    assert Embedding.load(tmp_path / "old.safetensors") == Embedding([1.0, 1.0], [1.0, 1.0])
    assert Embedding.load(tmp_path / "old.safetensors").mean_features is None


def test_a_bare_embedding_survives(tmp_path: Path) -> None:
    Embedding([1.0], [1.0]).save(tmp_path / "bare")
    assert Embedding.load(tmp_path / "bare") == Embedding([1.0], [1.0])


def test_a_failed_save_leaves_the_old_file(
    embedding: Embedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digits.safetensors"
    Embedding([1.0], [1.0]).save(path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        embedding.save(path)
    assert Embedding.load(path) == Embedding([1.0], [1.0])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", [".npz", ".p", ".pickle"])
def test_formats_for_reading_are_not_written(embedding: Embedding, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"only be read; save as \.safetensors"):
        embedding.save(tmp_path / f"digits{suffix}")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no embedding file at"):
        Embedding.load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 100, -3])
def test_truncated_files(embedding: Embedding, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "digits.safetensors"
    embedding.save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="truncated, or not a safetensors file"):
        Embedding.load(path)


HEADER = {"format": "t2v_lightning.embedding", "format_version": "1", "layers": "[]", "meta": "{}"}
ONES = {"fisher": np.ones(2), "scale": np.ones(2)}


@pytest.mark.parametrize(
    ("arrays", "header", "message"),
    [
        (ONES, {}, r"not an embedding: it holds \['fisher', 'scale'\]"),
        (ONES, {"format_version": "3"}, "format version '3'; this package reads versions 1 and 2"),
        ({"fisher": np.ones(2)}, {}, "it lacks scale"),
        (ONES | {"fisher": np.ones(2, np.float32)}, {}, "fisher is float32; expected float64"),
        (ONES | {"weights": np.ones(2)}, {}, "it holds 'weights'"),
        (ONES | {"fisher": np.array([1, np.nan])}, {}, "not finite"),
        (ONES | {"fisher": np.array([1.0, -1.0])}, {}, "below 0"),
        (ONES | {"scale": np.ones(3)}, {}, r"scale has shape \[3\]; expected \[2\]"),
        (ONES, {"layers": '[["a", 0, 1]]'}, "they end at 1"),
        (ONES, {"layers": '[["a", 0, 1], ["a", 1, 2]]'}, "occurs twice"),
        (ONES, {"layers": "[1]"}, "not the expected JSON text"),
        (ONES, {"layers": '[["a", "0", "2"]]'}, r"must map to slice\(start, stop\)"),
        (ONES, {"meta": "{"}, "not the expected JSON text"),
        (ONES, {"meta": "[]"}, "its meta is a list"),
        (ONES, {"meta": "[" * 100_000}, "not the expected JSON text"),
    ],
)
def test_foreign_and_damaged_files(
    tmp_path: Path, arrays: dict[str, np.ndarray], header: dict[str, str], message: str
) -> None:
    path = tmp_path / "file.safetensors"
    foreign = "holds" in message and not message.startswith("it")
    save_file(arrays, path, metadata={"format": "pt"} if foreign else HEADER | header)
    with pytest.raises(ValueError, match=message) as caught:
        Embedding.load(path)
    assert str(path) in str(caught.value)


def test_our_files_are_plain_safetensors(embedding: Embedding, tmp_path: Path) -> None:
    embedding.save(tmp_path / "digits.safetensors")
    arrays = load_file(tmp_path / "digits.safetensors")
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "fisher": "float64",
        "scale": "float64",
        "stderr": "float64",
        "group_sums": "float32",
        "group_weights": "float64",
        "mean_features": "float32",
    }


def test_npz(embedding: Embedding, tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    layers = [[name, entries.start, entries.stop] for name, entries in embedding.layers.items()]
    names = ("fisher", "scale", "stderr", "group_sums", "group_weights", "mean_features")
    held: dict[str, Any] = {name: getattr(embedding, name) for name in names}
    np.savez(path, **held, layers=json.dumps(layers), meta=json.dumps(embedding.meta))
    assert Embedding.load(path) == embedding


def test_npz_of_the_references_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", hessian=np.ones(3, np.float32))
    assert Embedding.load(tmp_path / "a.npz") == Embedding([1, 1, 1], [1, 1, 1])


def test_npz_with_objects_or_without_a_fisher(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", fisher=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Embedding.load(tmp_path / "objects.npz")
    np.savez(tmp_path / "other.npz", weights=np.ones(2))
    with pytest.raises(ValueError, match=r"neither `fisher` nor `hessian`; it holds \['weights'\]"):
        Embedding.load(tmp_path / "other.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(ValueError, match=r"truncated, or not an \.npz file"):
        Embedding.load(tmp_path / "broken.npz")
    (tmp_path / "text.npz").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"text\.npz is not an embedding that can be read"):
        Embedding.load(tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("embedding.p", b"\x80\x04ctask2vec\nEmbedding\n)\x81."),
        ("embedding.p", b"\x80\x04cnumpy._core.multiarray\nscalar\n)\x81."),
        ("embedding.npz", b"PK\x03\x04 no archive at all"),
    ],
)
def test_hostile_files_end_in_an_error_that_names_them(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not an embedding"):
        Embedding.load(tmp_path / name)


def test_an_npz_of_a_broken_header_or_of_no_real_numbers(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "broken.npz", "w") as archive:
        archive.writestr("fisher.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': (3,    \n")
    np.savez(tmp_path / "complex.npz", fisher=np.ones(3, complex))
    for name in ("broken", "complex"):
        with pytest.raises(ValueError, match=f"{name}.npz is not an embedding"):
            Embedding.load(tmp_path / f"{name}.npz")
