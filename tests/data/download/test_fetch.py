import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from loopback import Loopback, serving
from replicas import noise

from t2v_lightning.data.download import fetch as fetching
from t2v_lightning.data.download.fetch import check_space, fetch
from t2v_lightning.data.errors import DownloadError

CONTENT = noise(300_000).tobytes()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as state:
        state.files["/a.bin"] = CONTENT
        yield state


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSE", 0.001)
    monkeypatch.setattr(fetching, "TIMEOUT", 0.3)


def get(server: Loopback, path: Path, checksum: str = MD5) -> Path:
    return fetch([server.url + "/a.bin"], path, checksum, progress=False)


def ranges(server: Loopback) -> list[str | None]:
    return [wanted for _, wanted in server.requests]


@pytest.mark.parametrize("checksum", [MD5, "sha256:" + hashlib.sha256(CONTENT).hexdigest()])
def test_a_file_comes_whole_and_nothing_else_stays(server: Loopback, tmp_path: Path, checksum: str) -> None:
    assert get(server, tmp_path / "deep" / "a.bin", checksum).read_bytes() == CONTENT
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"a.bin"}
    assert ranges(server) == [None]


def test_a_right_file_is_not_fetched_again(server: Loopback, tmp_path: Path) -> None:
    for _ in range(2):
        get(server, tmp_path / "a.bin")
    assert len(server.requests) == 1


def test_dropped_connections_are_taken_up_where_they_broke(server: Loopback, tmp_path: Path) -> None:
    server.plan = [100_000, 50_000, 0, 120_000]
    assert get(server, tmp_path / "a.bin").read_bytes() == CONTENT
    assert ranges(server) == [None, *(f"bytes={n}-" for n in (100_000, 150_000, 150_000, 270_000))]


def test_silence_counts_as_a_broken_connection(server: Loopback, tmp_path: Path) -> None:
    server.plan = ["silence"]
    assert get(server, tmp_path / "a.bin").read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=150000-"]


def test_a_later_call_goes_on_from_what_is_there(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:123_456])
    assert get(server, tmp_path / "a.bin").read_bytes() == CONTENT
    assert ranges(server) == ["bytes=123456-"]


def test_a_part_that_is_whole_already_is_taken(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert get(server, tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_part_that_is_too_long_is_thrown_away(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    assert get(server, tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("behaviour", ["ignores range", "wrong piece", "no length"])
def test_servers_that_are_lax_about_ranges_do_no_harm(
    server: Loopback, tmp_path: Path, behaviour: str
) -> None:
    server.plan = [100_000, behaviour]
    assert get(server, tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_part_of_another_version_is_fetched_from_the_start(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"x" * 200_000)
    assert get(server, tmp_path / "a.bin").read_bytes() == CONTENT
    assert ranges(server) == ["bytes=200000-", None]


def test_wrong_bytes_are_deleted_and_said(server: Loopback, tmp_path: Path) -> None:
    server.plan = ["wrong bytes"]
    with pytest.raises(DownloadError, match=rf"a\.bin whose checksum is not {MD5}.*deleted"):
        get(server, tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())
    assert get(server, tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wrong_file_under_the_name_is_fetched_again(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1] + b"!")
    assert get(server, tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("code", ["500", "503", "429"])
def test_passing_errors_of_the_server_are_waited_out(server: Loopback, tmp_path: Path, code: str) -> None:
    server.plan = [code, code]
    assert get(server, tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", ["404", "403"])
def test_lasting_errors_are_not(server: Loopback, tmp_path: Path, code: str) -> None:
    server.plan = [code] * 10
    with pytest.raises(DownloadError, match=rf"cannot fetch .*a\.bin \(HTTP Error {code}.*may have moved"):
        get(server, tmp_path / "a.bin")
    assert len(server.requests) == 1


def test_a_server_that_never_gives_more_is_given_up_and_the_part_kept(
    server: Loopback, tmp_path: Path
) -> None:
    server.plan = [70_000, *[0] * 20]
    with pytest.raises(DownloadError, match=r"resumes after the 70,000 bytes that are there"):
        get(server, tmp_path / "a.bin")
    assert len(server.requests) == 1 + fetching.ATTEMPTS
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:70_000]


def test_no_server_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"cannot fetch http://127\.0\.0\.1:9/a .*check the connection"):
        fetch(["http://127.0.0.1:9/a"], tmp_path / "a", MD5, progress=False)


def test_the_next_address_is_asked_when_one_fails(server: Loopback, tmp_path: Path) -> None:
    urls = [server.url + "/gone.bin", server.url + "/a.bin"]
    assert fetch(urls, tmp_path / "a.bin", MD5, progress=False).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match=r"(?s)gone\.bin.*lost\.bin"):
        fetch([urls[0], server.url + "/lost.bin"], tmp_path / "b.bin", MD5, progress=False)


def test_too_little_space_is_said_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=74_000_000_000))
    with pytest.raises(DownloadError, match=r"got 74\.0 GB of free space in .*but 319\.0 GB are needed"):
        check_space(tmp_path / "not" / "there", 319_000_000_000)
    check_space(tmp_path / "not" / "there", 74_000_000_000)
    assert not (tmp_path / "not").exists()


def test_a_progress_bar_is_shown(
    server: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch([server.url + "/a.bin"], tmp_path / "a.bin", MD5)
    assert "a.bin" in capsys.readouterr().out
