"""Fetching one file over HTTP: resumed after interruptions, verified, and visible only when complete."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from t2v_lightning.data.errors import DownloadError

_CHUNK = 1 << 20
ATTEMPTS = 6
"""Attempts in a row that bring no new byte, after which an address is given up."""
PAUSE = 1.0
"""Seconds before the second attempt; doubled for each one after it."""
TIMEOUT = 60.0
"""Seconds without data after which a connection counts as broken."""


class _BrokenError(Exception):
    """The connection broke; the bytes received so far are kept."""


def bytes_progress(enabled: bool = True) -> Progress:
    """A progress bar that counts bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), disable=not enabled)


def check_space(folder: Path, needed: int) -> None:
    """Checks that the disk of `folder`, which need not exist yet, has `needed` bytes free.

    Raises:
        DownloadError: it has fewer.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise DownloadError(
            f"got {_with_unit(free)} of free space in {folder}, but {_with_unit(needed)} are needed: free some, "
            "or choose another root"
        )


def fetch(urls: Sequence[str], path: Path, checksum: str, *, progress: bool = True) -> Path:
    """Fetches a file from the first of its addresses that gives it.

    Bytes go to `path` + ".part", which a later call continues; the file appears under its own name once it is
    complete and its checksum right. Processes that may fetch the same file at the same time need a lock.

    Args:
        urls: addresses of the same file.
        path: where it goes; a file that is there already is kept if its checksum is right.
        checksum: `"md5:<hex>"` or `"sha256:<hex>"`.
        progress: whether to show a progress bar.

    Raises:
        DownloadError: no address gives the file, or its checksum is wrong.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with bytes_progress(progress) as bar:
        if path.exists():
            if _has_checksum(path, checksum, bar):
                return path
            os.replace(path, part)
        failures = []
        for url in urls:
            try:
                _fetch_checked(url, part, checksum, bar)
            except DownloadError as error:
                failures.append(str(error))
            else:
                os.replace(part, path)
                return path
    raise DownloadError("\n".join(failures))


def _with_unit(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _fetch_checked(url: str, part: Path, checksum: str, bar: Progress) -> None:
    resumed = part.exists() and part.stat().st_size > 0
    # A resumed download gets a second attempt, as its first bytes may be those of another version of the file.
    for _ in range(2 if resumed else 1):
        _fetch_part(url, part, bar)
        if _has_checksum(part, checksum, bar):
            return
        part.unlink()
    raise DownloadError(
        f"got a file from {url} whose checksum is not {checksum}, and deleted it: try again later, or put the "
        f"right file at {part.with_suffix('')} yourself"
    )


def _fetch_part(url: str, part: Path, bar: Progress) -> None:
    """Fetches until the file is complete, resuming after every broken connection."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, bar)
            return
        except _BrokenError as error:
            gained = part.exists() and part.stat().st_size > before
            failures = 0 if gained else failures + 1
            if failures >= ATTEMPTS:
                raise DownloadError(
                    f"cannot fetch {url} ({error}): check the connection and try again, which resumes "
                    f"after the {before:,} bytes that are there"
                ) from error
            time.sleep(PAUSE * 2 ** max(0, failures - 1))


def _transfer(url: str, part: Path, bar: Progress) -> None:
    """One request for the rest of the file, appended to `part`."""
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and _total(error.headers.get("Content-Range")) == have:
            return
        if error.code == 416:
            part.unlink()
            raise _BrokenError("the server's file is shorter than what is there") from error
        if error.code < 500 and error.code not in (408, 429):
            raise DownloadError(
                f"cannot fetch {url} ({error}): the file may have moved; fetch it in another way"
            ) from error
        raise _BrokenError(str(error)) from error
    except (HTTPException, OSError) as error:
        raise _BrokenError(str(error)) from error
    with response, part.open("ab") as file:
        resumes = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        if not resumes:
            # The server sent the file from its start, or a piece that does not continue what is there.
            file.truncate(0)
            if response.status == 206:
                raise _BrokenError("the server sent another piece than the one asked for")
        _copy(response, file, have if resumes else 0, bar, part.with_suffix("").name)


def _copy(response: HTTPResponse, file: BinaryIO, start: int, bar: Progress, name: str) -> None:
    length = response.headers.get("Content-Length")
    total = start + int(length) if length is not None else None
    task = bar.add_task(name, total=total, completed=start)
    done = start
    try:
        while True:
            try:
                chunk = response.read1(_CHUNK)
            except (HTTPException, OSError) as error:
                raise _BrokenError(str(error)) from error
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            bar.update(task, completed=done)
    finally:
        bar.remove_task(task) if total is None or done < total else None
    if total is not None and done != total:
        raise _BrokenError(f"the connection ended at {done:,} of {total:,} bytes")


def _total(content_range: str | None) -> int | None:
    """The length of the whole file in `bytes */1234`."""
    total = (content_range or "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _has_checksum(path: Path, checksum: str, bar: Progress) -> bool:
    algorithm, _, expected = checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    task = bar.add_task(f"checking {path.name}", total=path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            bar.update(task, advance=len(chunk))
    bar.remove_task(task)
    return digest.hexdigest() == expected
