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
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from t2v_lightning.data.download.fetch import bytes_progress
from t2v_lightning.data.errors import DownloadError


def unpack(
    archive: Path, folder: Path, pattern: str = "*", *, flat: bool = False, progress: bool = True
) -> int:
    """Unpacks a tar (of any compression) or zip file; returns the number of files that match the pattern.

    Files appear whole or not at all, and those that are there in their full size are left alone, so that
    unpacking can be interrupted and resumed. A leading `/` in a name is dropped.

    Args:
        archive: the file to unpack.
        folder: where it goes; created if it is missing.
        pattern: shell pattern of the names to unpack.
        flat: leave out the folders inside the archive.
        progress: whether to show a progress bar.

    Raises:
        DownloadError: the archive is damaged, or holds a link, a device or a path that leads out of
            `folder`; what comes before that in the archive is unpacked. Or this Python cannot check paths.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(root / "a.zip", "w") as packed:
    ...     packed.writestr("images/1.txt", "one")
    >>> unpack(root / "a.zip", root / "out", progress=False), (root / "out/images/1.txt").read_text()
    (1, 'one')
    """
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError(
            f"cannot unpack {archive} safely with this version of Python: use 3.10.12, 3.11.4, 3.12 or later"
        )
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with archive.open("rb") as raw, bytes_progress(progress) as bar:
            task = bar.add_task(f"unpacking {archive.name}", total=archive.stat().st_size)
            is_zip = raw.read(2) == b"PK"
            raw.seek(0)
            for member, open_member in _zip_members(raw) if is_zip else _tar_members(raw):
                bar.update(task, completed=raw.tell())
                # Raises where the path, with the links that are on disk already, leads out of the folder.
                name = tarfile.data_filter(member, str(folder)).name
                if member.isfile() and fnmatch(name, pattern):
                    _write(folder / (PurePosixPath(name).name if flat else name), member.size, open_member)
                    count += 1
                elif not (member.isfile() or member.isdir()):
                    raise tarfile.SpecialFileError(member)
    except (tarfile.FilterError, IsADirectoryError) as error:
        raise DownloadError(f"archive {archive} is refused: {error}. Fetch it from elsewhere") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DownloadError(
            f"archive {archive} is damaged ({error}): delete it and fetch it again"
        ) from error
    return count


def _tar_members(raw: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, Callable[[], IO[bytes] | None]]]:
    with tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            yield member, partial(tar.extractfile, member)
            # Otherwise the list of members of a large archive fills the memory.
            tar.members.clear()  # type: ignore[attr-defined]


def _zip_members(raw: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, Callable[[], IO[bytes] | None]]]:
    """Members described as those of a tar file are, so that the same checks apply."""
    with zipfile.ZipFile(raw) as packed:
        for item in packed.infolist():
            member = tarfile.TarInfo(item.filename)
            member.size = item.file_size
            member.type = tarfile.DIRTYPE if item.is_dir() else tarfile.REGTYPE
            yield member, partial(packed.open, item)


def _write(target: Path, size: int, open_member: Callable[[], IO[bytes] | None]) -> None:
    if target.is_file() and target.stat().st_size == size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(f"it holds a file where the folder {target} is")
    # Not `whole_file`, which waits for the disk: half a million images would take hours.
    part = target.with_name(f".{target.name}.part")
    source = open_member()
    if source is None:
        raise tarfile.ReadError(f"{target.name} cannot be read")
    with source, part.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    os.replace(part, target)
