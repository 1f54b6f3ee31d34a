"""The reference's embedding.p: read as it was written, and nothing in it is ever run."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2v_lightning.embedding import Embedding


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class that pickles under the reference's name, with its attributes."""

    class ReferenceEmbedding:
        def __init__(self, hessian: Any, scale: Any, meta: Any = None) -> None:
            self.hessian, self.scale, self.meta = hessian, scale, meta

    ReferenceEmbedding.__module__ = "task2vec"
    ReferenceEmbedding.__name__ = ReferenceEmbedding.__qualname__ = "Embedding"
    module = types.ModuleType("task2vec")
    module.Embedding = ReferenceEmbedding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "task2vec", module)
    return ReferenceEmbedding


def write(path: Path, value: object, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f8"])
def test_every_protocol(reference: type, tmp_path: Path, protocol: int, dtype: str) -> None:
    hessian = np.random.default_rng(0).random(50).astype(dtype)
    meta = {
        "task_name": "cub 3",
        "task2vec": {"method": "variational", "skip_layers": 6},
        "ids": (1, 2),
        "accuracy": np.float32(0.5),
        "counts": np.arange(3),
    }
    path = write(tmp_path / "embedding.p", reference(hessian, np.full(50, 2, dtype), meta), protocol)
    embedding = Embedding.load(path)
    assert embedding.fisher.tolist() == hessian.tolist()
    assert embedding.scale.tolist() == [2] * 50
    assert embedding.layers == {}
    assert embedding.task_name == "cub 3"
    assert embedding.meta["task2vec"] == {"method": "variational", "skip_layers": 6}
    assert (embedding.meta["ids"], embedding.meta["accuracy"], embedding.meta["counts"]) == (
        [1, 2],
        0.5,
        [0, 1, 2],
    )


def test_the_names_of_old_numpy(reference: type, tmp_path: Path) -> None:
    data = pickle.dumps(reference(np.ones(3), np.ones(3)), 2)
    path = tmp_path / "embedding.p"
    assert b"numpy._core.multiarray" in data
    path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert Embedding.load(path) == Embedding([1, 1, 1], [1, 1, 1])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("diversity.task2vec", "Embedding"),
        ("task2vec.task2vec", "Embedding"),
        ("diversity_src.diversity.task2vec_nlp", "Embedding"),
        ("mistral_task2vec", "MistralEmbedding"),
        ("__main__", "Embedding"),
    ],
)
def test_the_class_of_a_fork(
    reference: type, tmp_path: Path, module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such module is there to be imported when it is read."""
    with monkeypatch.context() as patch:
        reference.__module__, reference.__name__, reference.__qualname__ = module, name, name
        there = types.ModuleType(module)
        setattr(there, name, reference)
        for dots in range(module.count(".")):
            patch.setitem(sys.modules, module.rsplit(".", dots + 1)[0], types.ModuleType("parent"))
        patch.setitem(sys.modules, module, there)
        path = write(tmp_path / "embedding.p", reference(np.arange(3.0), np.ones(3), {"task_name": "wiki"}))
    assert Embedding.load(path).fisher.tolist() == [0, 1, 2]
    assert Embedding.load(path).task_name == "wiki"


def test_a_dict_of_its_attributes(tmp_path: Path) -> None:
    path = write(tmp_path / "embedding.p", {"hessian": np.arange(3.0), "scale": np.ones(3), "meta": None})
    assert Embedding.load(path) == Embedding([0, 1, 2], [1, 1, 1])


def test_a_class_of_another_name_or_place(tmp_path: Path) -> None:
    for module, name in (
        ("task2vec", "ProbeNetwork"),
        ("os.path", "Embedding"),
        ("task2vec.os;", "Embedding"),
    ):
        path = tmp_path / "embedding.p"
        path.write_bytes(b"\x80\x04" + stack_global(module, name) + b")R.")
        with pytest.raises(ValueError, match=r"which is refused: only NumPy arrays and task2vec\.Embedding"):
            Embedding.load(path)


def test_meta_may_be_missing(reference: type, tmp_path: Path) -> None:
    assert Embedding.load(write(tmp_path / "e.p", reference(np.ones(2), np.ones(2)))).meta == {}


class Hostile:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def hostile_calls(marker: Path) -> dict[str, Hostile]:
    """Calls that would create the file ``marker``, or read and load files."""
    npy = marker.with_suffix(".npy")
    payload = pickle.dumps(Hostile(os.system, f"touch {marker}"))
    return {
        "os.system": Hostile(os.system, f"touch {marker}"),
        "subprocess": Hostile(subprocess.check_call, ["touch", str(marker)]),
        "eval": Hostile(builtins.eval, f"open({str(marker)!r}, 'w').close()"),
        "exec": Hostile(builtins.exec, f"open({str(marker)!r}, 'w').close()"),
        "getattr": Hostile(builtins.getattr, str, "join"),
        "import": Hostile(builtins.__import__, "os"),
        "open": Hostile(io.open, str(marker), "w"),
        "numpy.load": Hostile(np.load, str(npy), None, True),
        "numpy.fromfile": Hostile(np.fromfile, "/etc/hostname", "u1"),
        "numpy.frombuffer": Hostile(np.frombuffer, b"12345678"),
        "numpy.memmap": Hostile(np.memmap, str(marker), "u1", "w+", 0, (1,)),
        "numpy.save": Hostile(np.save, str(marker), np.ones(1)),
        "pickle.loads": Hostile(pickle.loads, payload),
    }


@pytest.mark.parametrize("name", hostile_calls(Path("x")))
@pytest.mark.parametrize("place", ["top", "hessian", "meta", "array"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_files_are_refused(
    reference: type, tmp_path: Path, name: str, place: str, protocol: int
) -> None:
    marker = tmp_path / "ran"
    hostile = hostile_calls(marker)[name]
    ones = np.ones(2)
    value = {
        "top": hostile,
        "hessian": reference(hostile, ones),
        "meta": reference(ones, ones, {"a": [hostile]}),
        "array": reference(np.array([hostile], dtype=object), ones),
    }[place]
    path = write(tmp_path / "embedding.p", value, protocol)
    with pytest.raises(ValueError, match=r"which is refused: only NumPy arrays and task2vec\.Embedding"):
        Embedding.load(path)
    assert not marker.exists()


def stack_global(module: str, name: str) -> bytes:
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (stack_global("task2vec", "Embedding.__init__.__globals__"), "refused"),
        (stack_global("numpy", "dtype.__class__"), "refused"),
        (stack_global("numpy.core.multiarray", "_reconstruct.__globals__"), "refused"),
        (stack_global("t2v_lightning.embedding.reference_pickle", "os"), "refused"),
        # A class is no instance to be given a state; and a string cannot be called.
        (stack_global("task2vec", "Embedding") + b"}b", "truncated, or not a pickle"),
        (stack_global("numpy", "ndarray") + b")R", "truncated, or not a pickle"),
        (stack_global("numpy", "ndarray") + b"}\x8c\x01a\x4b\x01sb", "truncated, or not a pickle"),
        (stack_global("numpy", "dtype") + b"\x8c\x01O\x85R", "holds a _Dtype"),
        (stack_global("_codecs", "encode") + b"\x8c\x01O\x8c\x03hex\x86R", "holds a _Bytes"),
        (b"\x82\x01", "unregistered extension code"),
        (b"\x8c\x01aQ", "truncated, or not a pickle"),  # a persistent id
        (b"}", "holds a dict"),
        (b"\x8c\x01a", "holds a str"),
    ],
)
def test_hostile_programs(tmp_path: Path, program: bytes, message: str) -> None:
    path = tmp_path / "embedding.p"
    path.write_bytes(b"\x80\x04" + program + b".")
    list(pickletools.genops(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        Embedding.load(path)


def array_program(dtype: bytes, shape: tuple[int, ...], data: bytes, order: bytes = b"<") -> bytes:
    """An array of this dtype, shape and bytes, whether they fit each other or not."""

    def text(value: bytes) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    head = stack_global("numpy.core.multiarray", "_reconstruct")
    head += stack_global("numpy", "ndarray") + b"K\x00\x85" + b"C\x01b" + b"\x87R"
    kind = stack_global("numpy", "dtype") + text(dtype) + b"\x89\x88\x87R"
    kind += b"(K\x03" + text(order) + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    size = b"(" + b"".join(map(number, shape)) + b"t"
    return head + b"(K\x01" + size + kind + b"\x89" + b"B" + struct.pack("<I", len(data)) + data + b"tb"


def embedding_program(hessian: bytes, meta: bytes = b"}") -> bytes:
    scale = array_program(b"f8", (1,), struct.pack("<d", 1.0))
    body = b"}(\x8c\x07hessian" + hessian + b"\x8c\x05scale" + scale + b"\x8c\x04meta" + meta + b"u"
    return b"\x80\x04" + stack_global("task2vec", "Embedding") + b")\x81" + body + b"b."


def test_the_hand_written_program_is_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "embedding.p"
    path.write_bytes(embedding_program(array_program(b"f8", (1,), struct.pack("<d", 3.0))))
    assert Embedding.load(path) == Embedding([3.0], [1.0])


EIGHT = bytes(8)


@pytest.mark.parametrize(
    ("hessian", "message"),
    [
        (array_program(b"f8", (1 << 30,), EIGHT), "with 8 bytes"),
        (array_program(b"f8", (-1,), EIGHT), r"shape \(-1,\)"),
        (array_program(b"O", (1,), EIGHT), "only plain numbers"),
        (array_program(b"O8", (1,), EIGHT), "only plain numbers"),
        (array_program(b"b8", (1,), EIGHT), "only plain numbers"),
        (array_program(b"V8", (1,), EIGHT), "only plain numbers"),
        (array_program(b"f8,O", (1,), EIGHT), "only plain numbers"),
        (array_program(b"f8", (1,), EIGHT) + b"K\x01b", "an array without its state"),
        (array_program(b"f8", (1,), EIGHT) + b")b", "an array without its state"),
        (b"K\x01", "a int where an array is expected"),
        (b"]", "a list where an array is expected"),
        (array_program(b"f8", (1,), struct.pack("<d", float("nan"))), "not finite"),
    ],
)
def test_arrays_that_do_not_add_up(tmp_path: Path, hessian: bytes, message: str) -> None:
    path = tmp_path / "embedding.p"
    path.write_bytes(embedding_program(hessian))
    with pytest.raises(ValueError, match=message):
        Embedding.load(path)


def test_endless_and_exploding_meta(tmp_path: Path, reference: type) -> None:
    endless: list[Any] = []
    endless.append(endless)
    exploding: list[Any] = []
    for _ in range(40):
        exploding = [exploding] * 10
    for meta in (endless, exploding):
        path = write(tmp_path / "embedding.p", reference(np.ones(1), np.ones(1), {"a": meta}))
        with pytest.raises(ValueError, match="nested too deeply or too large"):
            Embedding.load(path)


@pytest.mark.parametrize("meta", [{"a": {1, 2}}, {"a": b"bytes"}, [1], "text", 3])
def test_other_things_in_meta(tmp_path: Path, reference: type, meta: Any) -> None:
    path = write(tmp_path / "embedding.p", reference(np.ones(1), np.ones(1), meta))
    with pytest.raises(ValueError, match="its meta"):
        Embedding.load(path)


def test_truncated_and_foreign(tmp_path: Path, reference: type) -> None:
    data = pickle.dumps(reference(np.ones(4), np.ones(4), {}))
    path = tmp_path / "embedding.p"
    for kept in range(0, len(data), 7):
        path.write_bytes(data[:kept])
        with pytest.raises(ValueError, match="is not an embedding that can be read"):
            Embedding.load(path)
    path.write_bytes(b"hello, world")
    with pytest.raises(ValueError, match="truncated, or not a pickle"):
        Embedding.load(path)
    value = reference(np.ones(1), np.ones(1))
    value.extra = 1
    with pytest.raises(ValueError, match=r"attributes \['extra', 'hessian', 'meta', 'scale'\]"):
        Embedding.load(write(path, value))
