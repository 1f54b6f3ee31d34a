import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replicas import noise, write_idx

from t2v_lightning.data.benchmarks.raw_formats import read_idx, read_matlab, read_plain, read_python_batch
from t2v_lightning.data.errors import AnnotationError


@pytest.mark.parametrize("shape", [(5,), (3, 4, 6)])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_give_back_what_was_written(tmp_path: Path, shape: tuple[int, ...], packed: bool) -> None:
    array = noise(*shape)
    write_idx(tmp_path / "a", array, packed)
    assert np.array_equal(read_idx(tmp_path / ("a.gz" if packed else "a")), array)


def test_damaged_idx_files_are_errors_that_name_them(tmp_path: Path) -> None:
    write_idx(tmp_path / "a", noise(4, 5))
    whole = (tmp_path / "a").read_bytes()
    for name, content in {
        "cut": whole[:-1],
        "head": whole[:6],
        "none": b"",
        "other": b"\x00\x00\x0d\x01" + whole[4:],
        "cut.gz": gzip.compress(whole)[:-12],
        "plain.gz": whole,
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AnnotationError, match=f"cannot read .*{name} .*: fetch it again"):
            read_idx(tmp_path / name)


def test_plain_files_hold_whole_items(tmp_path: Path) -> None:
    noise(6, 2, 3).tofile(tmp_path / "a.bin")
    assert np.array_equal(read_plain(tmp_path / "a.bin", 2, 3), noise(6, 2, 3))
    with pytest.raises(
        AnnotationError, match=r"cannot read .*a\.bin \(cannot reshape .* size 36 into shape \(2,4\)"
    ):
        read_plain(tmp_path / "a.bin", 2, 4)
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(AnnotationError, match=r"cannot read .*a\.bin \(it is empty"):
        read_plain(tmp_path / "a.bin", 2, 3)


def test_damaged_matlab_files_are_errors_that_name_them(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"nothing")
    with pytest.raises(AnnotationError, match=r"cannot read .*a\.mat"):
        read_matlab(tmp_path / "a.mat", "X")


def python2_string(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def test_a_batch_of_python_2_is_read(tmp_path: Path) -> None:
    """Opcode by opcode what cPickle of Python 2 and the NumPy of its time wrote."""
    pixels = bytes(range(200, 212))
    dtype = b"cnumpy\ndtype\n" + python2_string(b"u1") + b"K\x00K\x01\x87R(K\x03" + python2_string(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + python2_string(b"b") + b"\x87R"
    )
    array += b"(K\x01K\x02K\x06\x86" + dtype + b"\x89" + python2_string(pixels) + b"tb"
    entries = python2_string(b"data") + array + python2_string(b"labels") + b"](K\x03K\x05e"
    (tmp_path / "batch").write_bytes(b"\x80\x02}(" + entries + b"u.")
    read = read_python_batch(tmp_path / "batch", "data", "labels")
    assert read["data"].tolist() == [list(pixels[:6]), list(pixels[6:])]
    assert read["labels"] == [3, 5]


@pytest.mark.parametrize("protocol", range(5))
def test_batches_of_any_protocol_of_their_time_are_read(tmp_path: Path, protocol: int) -> None:
    batch = {"data": noise(4, 12), "labels": [1, 2, 3, 0], "batch_label": "a batch"}
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol))
    read = read_python_batch(tmp_path / "batch")
    assert np.array_equal(read["data"], batch["data"])
    assert {**read, "data": None} == {**batch, "data": None}


class Trap:
    """Makes a folder when it is unpickled by a reader that does what a pickle says."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_a_pickle_that_names_a_function_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": Trap(str(tmp_path / "sprung"))}, 2))
    with pytest.raises(
        AnnotationError, match=r"cannot read .*batch \(the pickle asks for posix\.mkdir, which is refused"
    ):
        read_python_batch(tmp_path / "batch")
    assert not (tmp_path / "sprung").exists()
    pickle.loads((tmp_path / "batch").read_bytes())
    assert (tmp_path / "sprung").exists()


def test_a_batch_that_lacks_an_entry_is_an_error_that_names_both(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps({"labels": [1]}, 2))
    assert read_python_batch(tmp_path / "batch", "labels") == {"labels": [1]}
    with pytest.raises(AnnotationError, match=r"cannot read .*batch \(it holds no 'data'"):
        read_python_batch(tmp_path / "batch", "labels", "data")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"data": np.zeros(3)}, "it holds an array of something other than bytes"),
        (["no", "dict"], "the pickle holds a list; expected a dict"),
        ({"data": np.array([{}])}, "an array without its bytes"),
    ],
)
def test_other_pickles_are_errors_that_name_the_file(tmp_path: Path, content: Any, reason: str) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(AnnotationError, match=rf"cannot read .*batch \({reason}\): fetch it again$"):
        read_python_batch(tmp_path / "batch")
    (tmp_path / "batch").write_bytes(b"")
    with pytest.raises(AnnotationError, match=r"cannot read .*batch"):
        read_python_batch(tmp_path / "batch")
