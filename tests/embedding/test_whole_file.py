"""Files are whole or not there, whatever writes them."""

import os
from pathlib import Path

import pytest

from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.collection import find_embeddings
from t2v_lightning.embedding.run_folder import UNFINISHED, whole_file


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "numbers.bin"
    with whole_file(path) as part:
        part.write_bytes(b"1")
        assert not path.exists()
        assert part.parent == path.parent
    assert path.read_bytes() == b"1"
    assert list(path.parent.iterdir()) == [path]


def fill(path: Path, *texts: str, error: type[Exception] | None = None) -> None:
    with whole_file(path) as part:
        for text in texts:
            part.write_text(text)
        if error:
            raise error("disk full")


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    fill(tmp_path / "page.html", "before")
    with pytest.raises(OSError, match="disk full"):
        fill(tmp_path / "page.html", "half of", error=OSError)
    with pytest.raises(FileNotFoundError):
        fill(tmp_path / "page.html")  # writes nothing
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "before")]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "numbers.txt") as part:
            part.write_text("1")
    finally:
        os.umask(before)
    assert (tmp_path / "numbers.txt").stat().st_mode & 0o777 == 0o640


def test_what_a_kill_leaves_is_taken_for_no_embedding(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED.format("1a2b")).write_bytes(b"half of")
    Embedding([1.0], [1.0]).save(tmp_path / "digits.safetensors")
    assert find_embeddings([tmp_path]) == [tmp_path / "digits.safetensors"]
