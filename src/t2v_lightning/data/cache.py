"""Arrays that take long to make, cached on disk until the files that they are made from change."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_lightning.embedding.run_folder import whole_file

_STAMP = "stamp"
log = logging.getLogger(__name__)


def file_stamp(files: Sequence[Path]) -> str:
    """Names, sizes and times of the last changes of the files: a different string once one of them changes.

    Raises:
        FileNotFoundError: one of the files does not exist.
    """
    states = [(path.name, path.stat()) for path in files]
    return json.dumps([(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in states])


def cached_arrays(
    files: Sequence[Path], name: str, build: Callable[[], Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """What `build` makes of the files, from the cache if none of them has changed since.

    The cache is `.t2v_lightning/<name>.npz` beside the first file or, where that cannot be written, in the
    user's cache folder. It is written whole or not at all and read without unpickling. One that is damaged or
    out of date is rebuilt.

    Args:
        files: what `build` reads.
        name: name of the cache, with a version that changes when `build` does.
        build: gives arrays by name, none of them of Python objects.

    Raises:
        FileNotFoundError: one of the files does not exist.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "numbers.txt")
    >>> _ = path.write_text("1 2 3")
    >>> def build():
    ...     print("reading")
    ...     return {"numbers": np.loadtxt(path)}
    >>> for _ in range(2):
    ...     print(cached_arrays([path], "numbers", build)["numbers"])
    reading
    [1. 2. 3.]
    [1. 2. 3.]
    """
    stamp = file_stamp(files)
    places = _places(files[0].parent, name)
    for place in places:
        arrays = _read(place, stamp)
        if arrays is not None:
            return arrays
    arrays = dict(build())
    for place in places:
        try:
            _write(place, {**arrays, _STAMP: np.array(stamp)})
            break
        except OSError as error:
            log.info("cannot write a cache in %s (%s)", place.parent, error)
    return arrays


def _places(folder: Path, name: str) -> list[Path]:
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "t2v_lightning"
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return [folder / ".t2v_lightning" / f"{name}.npz", home / f"{name}-{key}.npz"]


def _read(place: Path, stamp: str) -> dict[str, NDArray[Any]] | None:
    try:
        with np.load(place, allow_pickle=False) as stored:
            if stored[_STAMP].item() != stamp:
                return None
            return {key: stored[key] for key in stored.files if key != _STAMP}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("the cache %s cannot be read and is rebuilt (%s)", place, error)
        return None


def _write(place: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with whole_file(place) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
