"""Unpacking archives that come from elsewhere: nothing is written outside the folder they go to."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from t2v_lightning.data.download.fetch import bytes_progress
from t2v_lightning.data.errors import DownloadError

__all__ = ["unpack"]

# Name and size of a file of an archive, and how to open it.
_Member = tuple[str, int, Callable[[], IO[bytes]]]


def unpack(
    archive: Path, folder: Path, pattern: str = "*", *, flat: bool = False, progress: bool = True
) -> int:
    """Unpack a tar (of any compression) or zip file; returns the number of files that it holds.

    Files appear whole or not at all, and those that are there in their full size are left alone, so that
    unpacking can be broken off and taken up again.

    Args:
        archive: the file to unpack.
        folder: where it goes; made when it is not there.
        pattern: shell pattern of the names to unpack.
        flat: leave out the folders inside the archive.
        progress: whether to show a progress bar.

    Raises:
        DownloadError: the archive is damaged, or holds a link, a device or a path that leads out of
            ``folder``; what comes before that in the archive is unpacked.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(root / "a.zip", "w") as packed:
    ...     packed.writestr("images/1.txt", "one")
    >>> unpack(root / "a.zip", root / "out", progress=False), (root / "out/images/1.txt").read_text()
    (1, 'one')
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with archive.open("rb") as raw, bytes_progress(progress) as bar:
            task = bar.add_task(f"unpacking {archive.name}", total=archive.stat().st_size)
            is_zip = raw.read(2) == b"PK"
            raw.seek(0)
            members = _zip_members(raw) if is_zip else _tar_members(raw, archive)
            for name, size, open_member in members:
                bar.update(task, completed=raw.tell())
                _check_inside(name, archive)
                # "." would be the folder itself, and its unfinished part lie beside it.
                if not PurePosixPath(name).name:
                    raise DownloadError(f"Archive {archive} holds {name!r}, a file without a name: refused.")
                if fnmatch(name, pattern):
                    _write(folder / (PurePosixPath(name).name if flat else name), size, open_member)
                    count += 1
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DownloadError(f"Archive {archive} is damaged ({error}): delete it, fetch it again.") from error
    return count


def _tar_members(raw: IO[bytes], archive: Path) -> Iterator[_Member]:
    with tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            if member.isdir():
                _check_inside(member.name, archive)
            elif not member.isfile():
                raise DownloadError(f"Archive {archive} holds {member.name!r}, a link or a device: refused.")
            else:
                yield member.name, member.size, lambda member=member: _opened(tar, member)  # type: ignore[misc]
            # Otherwise the list of members of a large archive grows without use.
            tar.members.clear()  # type: ignore[attr-defined]


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None:
        raise tarfile.ReadError(f"{member.name} cannot be read")
    return file


def _zip_members(raw: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as packed:
        for member in packed.infolist():
            if not member.is_dir():
                yield member.filename, member.file_size, lambda member=member: packed.open(member)  # type: ignore[misc]


def _check_inside(name: str, archive: Path) -> None:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in (*posix.parts, *windows.parts):
        raise DownloadError(f"Archive {archive} holds {name!r}, a path outside its folder: refused.")


def _write(target: Path, size: int, open_member: Callable[[], IO[bytes]]) -> None:
    if target.is_file() and target.stat().st_size == size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with open_member() as source, part.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    os.replace(part, target)
