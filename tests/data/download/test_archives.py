import contextlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from t2v_lightning.data.download.archives import unpack
from t2v_lightning.data.errors import DownloadError

FILES = {"a.txt": b"one", "deep/er/b.txt": b"two" * 50_000, "deep/é c.txt": b""}


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("deep/", b"")
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def archive(path: Path, kind: str, files: dict[str, bytes]) -> Path:
    return write_zip(path, files) if kind == "zip" else write_tar(path, files, kind)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["w:gz", "w:xz", "w", "zip"])
def test_archives_of_all_kinds_are_unpacked(tmp_path: Path, kind: str) -> None:
    path = archive(tmp_path / "packed", kind, FILES)
    assert unpack(path, tmp_path / "out", progress=False) == 3
    assert content(tmp_path / "out") == FILES


@pytest.mark.parametrize("kind", ["w:gz", "zip"])
def test_a_pattern_and_flat_choose_and_lift_files(tmp_path: Path, kind: str) -> None:
    path = archive(tmp_path / "packed", kind, FILES)
    assert unpack(path, tmp_path / "out", "*/b.*", flat=True, progress=False) == 1
    assert content(tmp_path / "out") == {"b.txt": FILES["deep/er/b.txt"]}


@pytest.mark.parametrize("kind", ["w:gz", "zip"])
@pytest.mark.parametrize("name", ["../evil", "deep/../../evil", "..", "link/evil"])
def test_paths_outside_the_folder_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = archive(tmp_path / "packed", kind, {"a.txt": b"one", name: b"bad"})
    (tmp_path / "in" / "out").mkdir(parents=True)
    (tmp_path / "in" / "out" / "link").symlink_to(tmp_path)
    with pytest.raises(DownloadError, match=r"archive .*packed is refused: .* outside the destination"):
        unpack(path, tmp_path / "in" / "out", progress=False)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"packed", "a.txt"}


@pytest.mark.parametrize("kind", ["w:gz", "zip"])
@pytest.mark.parametrize("name", ["/evil", "//evil", "C:\\evil", "..\\evil", "\\\\host\\evil", "C:evil"])
def test_absolute_paths_and_those_of_other_systems_stay_in_the_folder_or_are_refused(
    tmp_path: Path, kind: str, name: str
) -> None:
    path = archive(tmp_path / "packed", kind, {name: b"bad"})
    with contextlib.suppress(DownloadError):
        unpack(path, tmp_path / "in" / "out", progress=False)
    assert all(p.parent in (tmp_path, tmp_path / "in" / "out") for p in tmp_path.rglob("*") if p.is_file())
    assert {p.name for p in tmp_path.iterdir()} == {"packed", "in"}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("w:gz", "."), ("w:gz", "./"), ("w:gz", ""), ("w:gz", "a/.."), ("zip", "."), ("zip", "a/..")],
)
def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path, kind: str, name: str, flat: bool) -> None:
    path = archive(tmp_path / "packed", kind, {name: b"bad"})
    with pytest.raises(DownloadError, match=r"is refused: it holds a file where the folder .* is"):
        unpack(path, tmp_path / "in" / "out", progress=False, flat=flat)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"packed"}


def test_a_python_that_cannot_check_paths_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "packed", "w:gz", FILES)
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(DownloadError, match=r"cannot unpack .*packed safely .* use 3\.10\.12, 3\.11\.4"):
        unpack(path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_the_folder_itself_may_be_in_an_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "packed", "w") as tar:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        tar.addfile(tarfile.TarInfo("./a.txt"))
    assert unpack(tmp_path / "packed", tmp_path / "out", progress=False) == 1
    assert content(tmp_path / "out") == {"a.txt": b""}


@pytest.mark.parametrize("target", ["/etc", "a.txt"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    path = tmp_path / "packed"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, target
        tar.addfile(member)
    with pytest.raises(DownloadError, match=r"is refused: 'link' is a (special file|symlink|link)"):
        unpack(path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "link").exists()


def test_unpacking_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "packed", FILES)
    (tmp_path / "out" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "out" / "a.txt").write_bytes(b"ONE")
    (tmp_path / "out" / "deep" / "er" / "b.txt").write_bytes(b"tw")
    unpack(path, tmp_path / "out", progress=False)
    # A file of the full size is taken for done; a shorter one is written again.
    assert content(tmp_path / "out") == {**FILES, "a.txt": b"ONE"}


@pytest.mark.parametrize("kind", ["w:gz", "w:xz", "w", "zip"])
def test_damaged_archives_are_errors_that_name_them(tmp_path: Path, kind: str) -> None:
    path = archive(tmp_path / "packed", kind, {"a.bin": bytes(range(256)) * 4000})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DownloadError, match=r"(?s)archive .*packed is damaged .*fetch it again"):
        unpack(path, tmp_path / "out", progress=False)
    assert content(tmp_path / "out").keys() <= {".a.bin.part"}
    path.write_bytes(b"no archive")
    with pytest.raises(DownloadError, match="damaged"):
        unpack(path, tmp_path / "out", progress=False)


def test_damage_in_the_midst_of_an_xz_archive_is_said(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "packed", {"a.txt": b" ".join(b"%d" % (n * n) for n in range(40_000))}, "w:xz"
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(20) + whole[len(whole) // 2 + 20 :])
    with pytest.raises(DownloadError, match="damaged"):
        unpack(path, tmp_path / "out", progress=False)
