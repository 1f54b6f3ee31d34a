"""Embedding files: the fields of an embedding to bytes and back, without executing anything."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from t2v_lightning.embedding.reference_pickle import read_reference_pickle
from t2v_lightning.embedding.run_folder import whole_file

FORMAT = "t2v_lightning.embedding"
FORMAT_VERSION = 2

_READABLE = ("1", "2")
"""Files of version 1 hold no mean features."""

DTYPES = {
    "fisher": "float64",
    "scale": "float64",
    "stderr": "float64",
    "group_sums": "float32",
    "group_weights": "float64",
    "mean_features": "float32",
}
"""The arrays of an embedding. The first two are always there."""

_REQUIRED = ("fisher", "scale")

Fields = dict[str, Any]


def write_fields(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    layers: Mapping[str, slice],
    meta: Mapping[str, Any],
) -> None:
    """Writes a safetensors file: the arrays, with format version, layout and `meta` as JSON in its header.

    Raises:
        ValueError: the suffix of `path` belongs to a format that can only be read.
    """
    path = Path(path)
    if path.suffix.lower() in _READERS:
        raise ValueError(
            f"{path.name} ends in {path.suffix}, a format that can only be read; save as .safetensors"
        )
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "layers": json.dumps([[name, entries.start, entries.stop] for name, entries in layers.items()]),
        "meta": json.dumps(dict(meta)),
    }
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata=header)
    with whole_file(path) as part:
        part.write_bytes(data)


def read_fields(path: str | os.PathLike[str]) -> Fields:
    """The arguments of `Embedding` that a file holds; the suffix determines the format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, foreign, or of a later format version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no embedding file at {path}")
    try:
        return _READERS.get(path.suffix.lower(), _read_safetensors)(path)
    except (ValueError, OSError):
        raise
    except Exception as error:  # a damaged file makes readers raise almost anything
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from None


def _read_safetensors(path: Path) -> Fields:
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            fields: Fields = {}
            if header.get("format") != FORMAT:
                raise ValueError(
                    f"a safetensors file, but not an embedding: it holds {sorted(file.keys())[:5]}"
                )
            version = header.get("format_version", "")
            if version not in _READABLE:
                raise ValueError(
                    f"format version {version!r}; this package reads versions {' and '.join(_READABLE)}."
                    " A newer package wrote it: update this one"
                )
            for name in file.keys():  # noqa: SIM118 - the file itself is not iterable
                fields[name] = file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"truncated, or not a safetensors file ({error})") from None
    if missing := [name for name in _REQUIRED if name not in fields]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for name, array in fields.items():
        if name not in DTYPES:
            raise ValueError(f"it holds {name!r}, which is not part of an embedding")
        if array.dtype != DTYPES[name]:
            raise ValueError(f"{name} is {array.dtype}; expected {DTYPES[name]}")
    return fields | _read_header(header)


def _read_npz(path: Path) -> Fields:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("a single array; expected an .npz file with `fisher`")
        with file:
            held = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"truncated, or not an .npz file ({error})") from None
    fisher = held.get("fisher", held.get("hessian"))
    if fisher is None:
        raise ValueError(f"it has neither `fisher` nor `hessian`; it holds {sorted(held)[:5]}")
    fields: Fields = {name: held[name] for name in DTYPES if name in held}
    fields = {"scale": np.ones(fisher.shape), **fields, "fisher": fisher}
    for name, array in fields.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name} is {array.dtype}; expected real numbers")
    return fields | _read_header({name: str(held[name]) for name in ("layers", "meta") if name in held})


def _read_header(header: Mapping[str, str]) -> Fields:
    """`layers` and `meta` from their JSON text, with the types that `Embedding` expects."""
    try:
        layout = json.loads(header.get("layers", "[]"))
        meta = json.loads(header.get("meta", "{}"))
        layers = {str(name): slice(start, stop) for name, start, stop in layout}
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"its layers or meta are not the expected JSON text ({error})") from None
    if len(layers) != len(layout):
        raise ValueError("a layer name occurs twice in its layout")
    if not isinstance(meta, dict):
        raise ValueError(f"its meta is a {type(meta).__name__}; expected a JSON object")
    return {"layers": layers, "meta": meta}


_READERS = {
    ".npz": _read_npz,
    ".p": read_reference_pickle,
    ".pkl": read_reference_pickle,
    ".pickle": read_reference_pickle,
}
