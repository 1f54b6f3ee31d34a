"""Opening images of any kind as RGB, with errors that name the file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from t2v_lightning.data.errors import ImageError, MissingDataError
from t2v_lightning.probes.transforms import eight_bit

_NO_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
"""Formats that Pillow names but reads only with the help of another program, or not at all."""

_REMEDY = "repair or remove it, or pass on_error='skip' to leave out and count images that cannot be read"
_ORIENTATION = 0x0112
# What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any 8-bit or 16-bit PIL image as upright 8-bit RGB.

    EXIF rotation is applied, 16-bit grey keeps its upper 8 bits, palettes and CMYK become the colours that they
    stand for, and transparency is ignored.

    Raises:
        ValueError: the pixels are 32-bit numbers, whose range is not defined.

    >>> to_rgb(Image.fromarray(np.full((2, 2), 0x8000, dtype=np.uint16))).getpixel((0, 0))
    (128, 128, 128)
    """
    kind = image.format
    image = _upright(image)
    image.format = kind  # which tells 16 from 32 bits, and which turning forgets
    image = eight_bit(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data say; EXIF data that cannot be read are ignored."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return image
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def open_rgb(path: str | os.PathLike[str]) -> Image.Image:
    """An image file as upright 8-bit RGB; see `to_rgb`.

    Raises:
        MissingDataError: there is no such file.
        ImageError: the file is empty, truncated or not an image. Both errors name the file.
    """
    return _open(path, os.fspath(path))


def image_suffixes() -> frozenset[str]:
    """Endings, in lower case, of the files that Pillow reads by itself, plugins that are loaded included.

    >>> {".jpg", ".jfif", ".png", ".webp"} <= image_suffixes(), ".eps" in image_suffixes()
    (True, False)
    """
    formats = Image.registered_extensions()  # loads all of Pillow's own
    return frozenset(
        ending for ending, kind in formats.items() if kind in Image.OPEN and kind not in _NO_IMAGES
    )


def open_bytes(data: bytes, title: str) -> Image.Image:
    """The content of an image file as upright 8-bit RGB; `title` names it in errors.

    Raises:
        ImageError: the content is empty, truncated or not an image.
    """
    return _open(io.BytesIO(data), title)


def _open(source: Any, title: str) -> Image.Image:
    try:
        with Image.open(source) as image:
            return to_rgb(image)
    except FileNotFoundError as error:
        raise MissingDataError(f"image {title} does not exist: {_REMEDY}") from error
    except _DAMAGE as error:
        raise ImageError(f"cannot read image {title} ({error}): {_REMEDY}") from error


def open_array(pixels: NDArray[Any]) -> Image.Image:
    """An array as RGB PIL image: uint8 or uint16 [H, W] is grey, uint8 [H, W, 3] has colours; see `to_rgb`.

    Raises:
        ValueError: the pixels are 32-bit numbers.

    >>> open_array(np.zeros((2, 3), dtype=np.uint8)).size
    (3, 2)
    """
    return to_rgb(Image.fromarray(pixels))


def open_file(folder: str, name: bytes | str) -> Image.Image:
    """The image `folder/name`; a `functools.partial` over the folder pickles into workers."""
    return open_rgb(os.path.join(folder, os.fsdecode(name)))


def pack_names(names: Iterable[str]) -> NDArray[np.bytes_]:
    """File names as one array of bytes [N]. Unlike a list, its memory is shared with forked workers.

    >>> pack_names(["a/1.jpg", "b/20.jpg"]).dtype
    dtype('S8')
    """
    encoded = [os.fsencode(name) for name in names]
    return np.array(encoded, dtype="S") if encoded else np.empty(0, dtype="S1")


def missing_files(folder: Path, names: NDArray[np.bytes_]) -> list[str]:
    """Names that do not exist below `folder`; lists each folder once instead of looking for each file."""
    present: dict[str, set[str]] = {}
    missing = []
    for name in map(os.fsdecode, names):
        parent, file = os.path.split(name)
        if parent not in present:
            present[parent] = _listing(folder / parent)
        if file not in present[parent]:
            missing.append(name)
    return missing


def _listing(folder: Path) -> set[Any]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
