"""The command and the scripts that fetch benchmarks, against a server on the loopback address."""

import hashlib
import io
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import replicas
from loopback import Loopback, serving

from t2v_lightning.data import get_datamodule
from t2v_lightning.data.download import fetch as fetching
from t2v_lightning.data.download.__main__ import main
from t2v_lightning.data.download.catalogue import CATALOGUE, Source
from t2v_lightning.data.errors import DownloadError

SCRIPTS = Path(__file__).parents[3] / "scripts"


def packed(root: Path, folder: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        tar.add(root / folder, folder.rpartition("/")[2])
    return buffer.getvalue()


def publish(server: Loopback, name: str, contents: list[bytes]) -> tuple[Source, ...]:
    """The catalogue's entry with its files served from the loopback address."""
    sources = []
    for source, content in zip(CATALOGUE[name], contents, strict=True):
        server.files[f"/{source.filename}"] = content
        checksum = "sha256:" + hashlib.sha256(content).hexdigest()
        url = f"{server.url}/{source.filename}"
        sources.append(replace(source, urls=(url,), checksum=checksum, space=10_000_000))
    return tuple(sources)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as state:
        yield state


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds CUB-200."""
    root = tmp_path_factory.mktemp("source")
    replicas.write_cub200(root)
    return root


@pytest.fixture(scope="module")
def cub_archive(source: Path) -> bytes:
    return packed(source / "cub", "CUB_200_2011")


@pytest.fixture
def cub(server: Loopback, cub_archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """CUB-200 on the server."""
    monkeypatch.setattr(fetching, "PAUSE", 0.001)
    monkeypatch.setitem(CATALOGUE, "cub200", publish(server, "cub200", [cub_archive]))
    return server


def command(name: str, root: Path, *options: str) -> int:
    return main([name, "--root", str(root), "--quiet", *options])


def test_a_benchmark_is_fetched_once_to_where_it_is_looked_for(
    cub: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cub.plan = [200_000, 100_000]
    assert command("cub200", tmp_path / "data") == 0
    assert capsys.readouterr().out == f"cub200 is complete in {tmp_path / 'data'}\n"
    datamodule = get_datamodule("cub200", root=tmp_path / "data", task_id=3)
    datamodule.setup()
    assert datamodule.train_dataset[0][0].size == (14, 12)
    assert len(cub.requests) == 3
    assert command("cub200", tmp_path / "data") == 0
    assert len(cub.requests) == 3


def test_data_that_were_lost_are_unpacked_or_fetched_again(cub: Loopback, tmp_path: Path) -> None:
    lists = tmp_path / "data/cub/CUB_200_2011/images.txt"
    for requests, lost in ((1, []), (1, [lists]), (2, [lists, tmp_path / "data/cub/CUB_200_2011.tgz"])):
        for path in lost:
            path.unlink()
        assert command("cub200", tmp_path / "data") == 0
        assert lists.exists()
        assert len(cub.requests) == requests


def test_of_two_processes_one_fetches_and_one_waits(cub: Loopback, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=command, args=("cub200", tmp_path / "data")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(cub.requests) == 1
    assert len(list((tmp_path / "data/cub/CUB_200_2011/images").rglob("*.png"))) == 1000
    assert not list((tmp_path / "data").rglob("*.part"))


def test_a_root_that_cannot_be_made_is_said(
    cub: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert command("cub200", tmp_path / "file" / "data") == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_archives_can_be_removed_and_are_not_missed(cub: Loopback, tmp_path: Path) -> None:
    assert command("cub200", tmp_path / "data", "--remove-archives") == 0
    assert not list((tmp_path / "data").rglob("*.tgz"))
    assert command("cub200", tmp_path / "data") == 0
    assert len(cub.requests) == 1


def test_unpacking_that_was_broken_off_is_taken_up(
    cub: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = tarfile.TarFile.extractfile

    def break_off(self: tarfile.TarFile, member: tarfile.TarInfo) -> object:
        opened.append(member.name)
        if len(opened) == 40:
            raise KeyboardInterrupt
        return real(self, member)

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractfile", break_off)
        assert command("cub200", tmp_path / "data") == 130
    assert command("cub200", tmp_path / "data") == 0
    assert len(cub.requests) == 1
    get_datamodule("cub200", root=tmp_path / "data", task_id=24).setup()


def test_data_that_are_there_already_are_left_alone(cub: Loopback, source: Path) -> None:
    assert command("cub200", source) == 0
    assert cub.requests == []


@pytest.mark.parametrize("plan", [["wrong bytes"] * 9, ["404"]])
def test_failures_are_said_and_leave_nothing_that_looks_done(
    cub: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str], plan: list[int | str]
) -> None:
    cub.plan = plan
    assert command("cub200", tmp_path / "data") == 1
    assert "CUB_200_2011.tgz" in capsys.readouterr().err
    assert not (tmp_path / "data/cub/CUB_200_2011").exists()
    cub.plan = []
    assert command("cub200", tmp_path / "data") == 0


def test_space_is_looked_at_first(
    cub: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9_000_000))
    assert command("cub200", tmp_path / "data") == 1
    assert "got 9.0 MB of free space" in capsys.readouterr().err
    assert cub.requests == []
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=318_000_000_000))
    assert command("inat2018", tmp_path / "data") == 1
    assert "got 318.0 GB of free space" in (text := capsys.readouterr().err)
    assert "319.0 GB are needed" in text


def test_inat_is_fetched_file_by_file(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas.write_inat2018(tmp_path / "source", orders=4, drawn=4)
    folder = tmp_path / "source" / "inat2018"
    names = ("train2018.json", "val2018.json", "categories.json", "train_val2018")
    contents = [packed(folder, name) for name in names]
    monkeypatch.setitem(CATALOGUE, "inat2018", publish(server, "inat2018", contents))
    server.plan = ["well", "404"]
    assert command("inat2018", tmp_path / "data") == 1
    assert command("inat2018", tmp_path / "data") == 0
    assert [path for path, _ in server.requests].count("/train2018.json.tar.gz") == 1
    datamodule = get_datamodule("inat2018", root=tmp_path / "data", task_id=2)
    datamodule.setup()
    assert all(datamodule.test_dataset[n][0].size == (14, 12) for n in range(len(datamodule.test_dataset)))


def test_small_benchmarks_are_fetched_by_prepare_data(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas.write_mnist(tmp_path / "source", packed=True)  # type: ignore[call-arg]
    files = {path.name: path.read_bytes() for path in (tmp_path / "source/MNIST/raw").iterdir()}
    contents = [files[source.filename] for source in CATALOGUE["mnist"]]
    monkeypatch.setitem(CATALOGUE, "mnist", publish(server, "mnist", contents))
    datamodule = get_datamodule("split_mnist", root=tmp_path / "data", task_id=[3, 5])
    datamodule.prepare_data()
    datamodule.setup()
    assert len(datamodule.train_dataset) == 16
    datamodule.prepare_data()
    assert len(server.requests) == 4


def test_letters_are_taken_out_of_an_archive_of_much_else(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas.write_emnist_letters(tmp_path / "source", packed=True)  # type: ignore[call-arg]
    folder = tmp_path / "source/EMNIST/raw"
    (folder / "emnist-digits-train-images-idx3-ubyte.gz").write_bytes(b"much else")
    shutil.make_archive(str(tmp_path / "gzip"), "zip", folder.parent, "raw")
    content = (tmp_path / "gzip.zip").read_bytes()
    monkeypatch.setitem(CATALOGUE, "emnist_letters", publish(server, "emnist_letters", [content]))
    datamodule = get_datamodule("letters", root=tmp_path / "data")
    datamodule.prepare_data()
    datamodule.setup()
    assert datamodule.num_classes == 26
    names = {path.name for path in (tmp_path / "data/EMNIST/raw").glob("emnist*")}
    assert names == {
        f"emnist-letters-{s}-{k}-ubyte.gz" for s in ("train", "test") for k in ("images-idx3", "labels-idx1")
    }


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["cub200", "--where", "x"], ["cub200"]])
def test_wrong_arguments_print_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATA_ROOT", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m t2v_lightning.data.download" in capsys.readouterr().err


def test_the_root_may_be_in_the_environment(
    cub: Loopback, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(source))
    assert main(["cub200", "--quiet"]) == 0


@pytest.mark.parametrize("script", ["download_cub.sh", "download_inat2018.sh"])
@pytest.mark.parametrize("arguments", [[], ["a", "b"], [""], ["--help"]])
def test_scripts_print_their_usage_on_wrong_arguments(script: str, arguments: list[str]) -> None:
    done = subprocess.run([str(SCRIPTS / script), *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
    assert done.stderr.endswith(f"{script} DATA_ROOT\n")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("script", "name"), [("download_cub.sh", "cub200"), ("download_inat2018.sh", "inat2018")]
)
def test_scripts_fetch_their_benchmark(script: str, name: str, tmp_path: Path) -> None:
    # Stands for Python, so as to see what the script would have it do.
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    python.chmod(0o755)
    root = str(tmp_path / "with a space")
    environment = {**os.environ, "PYTHON": str(python)}
    done = subprocess.run([str(SCRIPTS / script), root], capture_output=True, text=True, env=environment)
    assert done.stdout.split("|") == ["-m", "t2v_lightning.data.download", name, "--root", root, ""]
    assert done.returncode == 7


@pytest.mark.slow
def test_the_script_fetches_from_a_server_that_drops_connections(cub: Loopback, tmp_path: Path) -> None:
    """The whole way in a process of its own, given up once in the middle and run again."""
    program = tmp_path / "python"
    source = CATALOGUE["cub200"][0]
    program.write_text(
        f"#!{sys.executable}\n"
        "import dataclasses, sys\n"
        "from t2v_lightning.data.download import __main__ as download, fetch\n"
        "fetch.PAUSE = 0.001\n"
        "source = download.CATALOGUE['cub200'][0]\n"
        f"served = dict(urls={source.urls!r}, checksum={source.checksum!r}, space=10**7)\n"
        "download.CATALOGUE['cub200'] = (dataclasses.replace(source, **served),)\n"
        "assert sys.argv[1:3] == ['-m', 't2v_lightning.data.download']\n"
        "sys.exit(download.main(sys.argv[3:]))\n"
    )
    program.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(program)}
    script = [str(SCRIPTS / "download_cub.sh"), str(tmp_path / "data")]
    cub.plan = [100_000, *[0] * 6]
    broken = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert broken.returncode == 1
    assert "100,000 bytes that are there" in broken.stderr
    cub.plan = [50_000, "503", "wrong piece"]
    done = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    get_datamodule("cub200", root=tmp_path / "data", task_id=3).setup()


def test_every_entry_has_addresses_checksums_and_space() -> None:
    for sources in CATALOGUE.values():
        for source in sources:
            assert source.provides
            assert source.space >= 10_000_000
            algorithm, _, digest = source.checksum.partition(":")
            assert len(digest) == 2 * hashlib.new(algorithm).digest_size
            assert all(url.startswith(("https://", "http://")) for url in source.urls)
            assert "?" not in source.filename
    assert sum(source.space for source in CATALOGUE["inat2018"]) == 319_000_000_000


def test_a_download_error_is_a_data_error() -> None:
    assert issubclass(DownloadError, OSError)
