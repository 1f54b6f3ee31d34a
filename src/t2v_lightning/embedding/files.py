"""Embedding files: the fields of an embedding to bytes and back, without ever executing anything."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from t2v_lightning.embedding.reference_pickle import read_reference_pickle

FORMAT = "t2v_lightning.embedding"
FORMAT_VERSION = 1
_REQUIRED = {"fisher": "float64", "scale": "float64"}
_OPTIONAL = {"stderr": "float64", "group_sums": "float32", "group_weights": "float64"}

Fields = dict[str, Any]


def write_fields(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    layers: Mapping[str, slice],
    meta: Mapping[str, Any],
) -> None:
    """Write a safetensors file: the arrays, with format version, layout and ``meta`` as JSON in its header.

    Raises:
        ValueError: the suffix of ``path`` is that of a format for reading only.
    """
    path = Path(path)
    if path.suffix.lower() in _READERS:
        raise ValueError(f"{path.name}: files ending in {path.suffix} are only read; save as .safetensors.")
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "layers": json.dumps([[name, entries.start, entries.stop] for name, entries in layers.items()]),
        "meta": json.dumps(dict(meta)),
    }
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata=header)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_fields(path: str | os.PathLike[str]) -> Fields:
    """The arguments of :class:`t2v_lightning.Embedding` that a file holds; the suffix tells the format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, foreign, or of a later format version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no embedding file at {path}.")
    try:
        return _READERS.get(path.suffix.lower(), _read_safetensors)(path)
    except (ValueError, OSError):
        raise
    except Exception as error:  # a damaged file makes readers raise almost anything
        raise ValueError(f"damaged ({type(error).__name__}: {error}).") from None


def _read_safetensors(path: Path) -> Fields:
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            fields: Fields = {}
            if header.get("format") != FORMAT:
                raise ValueError(
                    f"a safetensors file, but not an embedding: it holds {sorted(file.keys())[:5]}."
                )
            version = header.get("format_version", "")
            if version != str(FORMAT_VERSION):
                raise ValueError(
                    f"format version {version!r}; this package reads version {FORMAT_VERSION}."
                    " A newer package wrote it: update this one."
                )
            for name in file.keys():  # noqa: SIM118 - the file itself is not iterable
                fields[name] = file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"truncated, or not a safetensors file ({error}).") from None
    if missing := _REQUIRED.keys() - fields.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}.")
    expected = _REQUIRED | _OPTIONAL
    for name, array in fields.items():
        if name not in expected:
            raise ValueError(f"it holds {name!r}, which is no part of an embedding.")
        if array.dtype != expected[name]:
            raise ValueError(f"{name} is {array.dtype}; expected {expected[name]}.")
    return fields | _read_header(header)


def _read_npz(path: Path) -> Fields:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("a single array; an .npz file with `fisher` is expected.")
        with file:
            held = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"truncated, or not an .npz file ({error}).") from None
    fisher = held.get("fisher", held.get("hessian"))
    if fisher is None:
        raise ValueError(f"it has neither `fisher` nor `hessian`; it holds {sorted(held)[:5]}.")
    fields: Fields = {"fisher": fisher, "scale": held.get("scale", np.ones(fisher.shape))}
    fields |= {name: held[name] for name in _OPTIONAL if name in held}
    for name, array in fields.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name} is {array.dtype}; expected real numbers.")
    return fields | _read_header({name: str(held[name]) for name in ("layers", "meta") if name in held})


def _read_header(header: Mapping[str, str]) -> Fields:
    """``layers`` and ``meta`` from their JSON text, with the types that :class:`Embedding` expects."""
    try:
        layout = json.loads(header.get("layers", "[]"))
        meta = json.loads(header.get("meta", "{}"))
        layers = {str(name): slice(start, stop) for name, start, stop in layout}
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"its layers or meta are not the JSON text expected ({error}).") from None
    if len(layers) != len(layout):
        raise ValueError("a layer name occurs twice in its layout.")
    if not isinstance(meta, dict):
        raise ValueError(f"its meta is a {type(meta).__name__}; expected a JSON object.")
    return {"layers": layers, "meta": meta}


_READERS = {
    ".npz": _read_npz,
    ".p": read_reference_pickle,
    ".pkl": read_reference_pickle,
    ".pickle": read_reference_pickle,
}
