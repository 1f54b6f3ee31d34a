import logging
import os
import pickle
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from t2v_lightning.data import cache
from t2v_lightning.data.cache import cached_arrays


class Builder:
    """Counts how often it is asked to build."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.built += 1
        return {"numbers": np.arange(5), "names": np.array([b"a", b"bc"])}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "list.json"
    path.write_text("[1, 2]")
    return path


def stored(source: Path) -> Path:
    return source.parent / ".t2v_lightning" / "things.npz"


def test_arrays_are_built_once(source: Path) -> None:
    build = Builder()
    for _ in range(3):
        arrays = cached_arrays([source], "things", build)
        assert arrays["numbers"].tolist() == [0, 1, 2, 3, 4]
        assert arrays["names"].tolist() == [b"a", b"bc"]
        assert set(arrays) == {"numbers", "names"}
    assert build.built == 1
    assert [path.name for path in stored(source).parent.iterdir()] == ["things.npz"]


def test_a_change_of_a_file_rebuilds_them(source: Path) -> None:
    build = Builder()
    cached_arrays([source], "things", build)
    source.write_text("[1, 2, 3]")
    cached_arrays([source], "things", build)
    assert build.built == 2
    before = source.stat()
    source.write_text("[9, 2, 3]")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    cached_arrays([source], "things", build)
    assert build.built == 3


@pytest.mark.parametrize("damage", ["empty", "cut", "pickle", "text"])
def test_a_damaged_cache_is_rebuilt_and_runs_nothing(
    source: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    build = Builder()
    cached_arrays([source], "things", build)
    whole = stored(source).read_bytes()
    objects = np.array([{"an": "object"}], dtype=object)
    content = {"empty": b"", "cut": whole[:-30], "text": b"hello", "pickle": pickle.dumps(objects)}[damage]
    stored(source).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert cached_arrays([source], "things", build)["numbers"].tolist() == [0, 1, 2, 3, 4]
    assert build.built == 2
    assert "cannot be read and is rebuilt" in caplog.text
    cached_arrays([source], "things", build)
    assert build.built == 2


def test_a_write_that_fails_leaves_no_trace(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder()
    monkeypatch.setattr(cache.os, "replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cached_arrays([source], "things", build)
    assert list(stored(source).parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_has_its_cache_elsewhere(source: Path, tmp_path: Path) -> None:
    # A file in the way works for the superuser as well, whom permissions do not stop.
    stored(source).parent.write_text("in the way")
    build = Builder()
    for _ in range(2):
        cached_arrays([source], "things", build)
    assert build.built == 1
    assert len(list((tmp_path / "home").rglob("things-*.npz"))) == 1


def test_nowhere_to_write_is_no_error(source: Path, tmp_path: Path) -> None:
    stored(source).parent.write_text("in the way")
    (tmp_path / "home").write_text("in the way")
    build = Builder()
    for _ in range(2):
        assert cached_arrays([source], "things", build)["numbers"].sum() == 10
    assert build.built == 2


def test_many_at_once_see_only_whole_files(source: Path) -> None:
    results: list[int] = []

    def read() -> None:
        for _ in range(5):
            results.append(int(cached_arrays([source], "things", Builder())["numbers"].sum()))
            stored(source).unlink(missing_ok=True)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [10] * 20


def test_other_users_may_read_the_cache(source: Path) -> None:
    cached_arrays([source], "things", Builder())
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(stored(source).stat().st_mode) == 0o666 & ~mask
