"""The folder of a library: its files, so written that a reader finds the old library or the new one, whole.

`library.json` names all other files. Those are new files whenever they differ, and `library.json` is replaced last;
what the old one named and the new one does not is removed after that. Nothing that is read is executed.

==========================  =======================================================================================
`library.json`              format and version, tasks and experts with what is known about them, names of the files
`tasks-*.safetensors`       `fisher` float32 [tasks, D], and `mean_features` float32 [tasks, P] with NaN where unknown
`results-*.csv`             a row for each result: task, expert, kind, images, seed, error, stderr, failure
`embeddings/*.safetensors`  the whole embedding of each task, as `Embedding.save` writes it
==========================  =======================================================================================
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.run_folder import whole_file
from t2v_lightning.library.protocol import Protocol
from t2v_lightning.library.results import Result, ResultTable, check_name
from t2v_lightning.library.task_rows import TaskRows

FORMAT, FORMAT_VERSION = "t2v_lightning.library", 1
LIBRARY_FILE = "library.json"
_COLUMNS = ["task", "expert", "kind", "images", "seed", "error", "stderr", "failure"]


@dataclass
class Contents:
    """What a folder holds.

    Attributes:
        tasks: family of each task, by name; empty where unknown.
        experts: the task that each expert was trained on, by name; empty where unknown.
        comparable_by: what further embeddings must agree with.
        rows: their embeddings, as far as distances need them.
        results: the table.
        embeddings: files of the embeddings, by task, relative to the folder.
        generation: changes whenever the folder is written.
    """

    tasks: dict[str, str] = field(default_factory=dict)
    experts: dict[str, str] = field(default_factory=dict)
    comparable_by: dict[str, Any] = field(default_factory=dict)
    rows: TaskRows = field(default_factory=TaskRows)
    results: ResultTable = field(default_factory=ResultTable)
    embeddings: dict[str, str] = field(default_factory=dict)
    generation: str = ""


def read_library(folder: Path) -> Contents:
    """What a folder holds; an empty library where it holds no `library.json`.

    Raises:
        ValueError: files that are damaged, foreign, of a later version, or outside the folder.
        FileNotFoundError: a file that `library.json` names is missing.
    """
    if not (folder / LIBRARY_FILE).is_file():
        return Contents()
    try:
        text = json.loads((folder / LIBRARY_FILE).read_text(encoding="utf-8"))
        if not isinstance(text, dict) or text.get("format") != FORMAT:
            raise ValueError("it is not the file of a library")
        if text.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"format version {text.get('format_version')!r}; this package reads version {FORMAT_VERSION}. A newer "
                "package wrote it: update this one"
            )
        contents = Contents(
            tasks=_named("task", text["tasks"]),
            experts=_named("expert", text["experts"]),
            comparable_by=_as_compared(text["comparable_by"]),
            embeddings=_texts(text["embeddings"]),
            generation=str(text["generation"]),
        )
        for file in contents.embeddings.values():
            _inside(folder, file)
        if contents.embeddings.keys() != contents.tasks.keys():
            raise ValueError("its tasks and its embeddings have different names")
        arrays, results = _inside(folder, text["arrays"]), _inside(folder, text["results"])
    except (KeyError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise ValueError(f"{folder / LIBRARY_FILE} cannot be read: {error}") from None
    _read_arrays(arrays, contents)
    _read_results(results, contents)
    return contents


def write_library(
    folder: Path, contents: Contents, new: dict[str, Embedding], moved: bool = False
) -> Contents:
    """Writes a library and returns its contents as the folder has them.

    Args:
        folder: of the library; missing folders are created.
        contents: what to write, with the generation that it was read at.
        new: embeddings that the folder does not have yet, by task.
        moved: whether the contents were read from another folder.

    Raises:
        RuntimeError: somebody else has written to the folder since then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        before = _names(folder)
        if before.get("generation", "") != ("" if moved else contents.generation):
            raise RuntimeError(
                f"the library in {folder} has changed since it was opened; open it again and merge this one into it"
            )
        generation = secrets.token_hex(4)
        files = {} if moved else dict(contents.embeddings)
        for task, embedding in new.items():
            files[task] = f"embeddings/{_file_name(task)}-{generation}.safetensors"
            embedding.save(folder / files[task])
        names = {"arrays": f"tasks-{generation}.safetensors", "results": f"results-{generation}.csv"}
        arrays = {"fisher": contents.rows.fisher, "mean_features": contents.rows.mean_features}
        data = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
        with whole_file(folder / names["arrays"]) as part:
            part.write_bytes(save(data, metadata={"format": FORMAT, "format_version": str(FORMAT_VERSION)}))
        with whole_file(folder / names["results"]) as part:
            _write_results(part, contents.results)
        text = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "generation": generation,
            **names,
            "comparable_by": contents.comparable_by,
            "experts": contents.experts,
            "tasks": contents.tasks,
            "embeddings": files,
        }
        with whole_file(folder / LIBRARY_FILE) as part:
            part.write_text(json.dumps(text, indent=1), encoding="utf-8")
        for old in {*_files(before)} - {*_files(text)}:
            (folder / old).unlink(missing_ok=True)
    return replace(contents, embeddings=files, generation=generation)


def _names(folder: Path) -> dict[str, Any]:
    """The text of `library.json`, once it is known to be one that can be replaced."""
    if not (folder / LIBRARY_FILE).is_file():
        return {}
    read_library(folder)
    names: dict[str, Any] = json.loads((folder / LIBRARY_FILE).read_text(encoding="utf-8"))
    return names


def _files(text: dict[str, Any]) -> Iterator[str]:
    if text:
        yield from (text["arrays"], text["results"], *text["embeddings"].values())


def _inside(folder: Path, name: Any) -> Path:
    """The path of a file that `library.json` names."""
    pure = PurePosixPath(str(name))
    path = folder.joinpath(*pure.parts)
    if pure.is_absolute() or ".." in pure.parts or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"it names the file {str(name)!r}, which is outside the folder")
    return path


def _file_name(task: str) -> str:
    """Part of a file name that says which task it is, and is different for different tasks."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", task)[:40].strip("._") or "task"
    return f"{plain}-{hashlib.sha256(task.encode()).hexdigest()[:8]}"


def _texts(value: Any) -> dict[str, str]:
    if not all(isinstance(text, str) for text in value.values()):
        raise ValueError("a name in it is no text")
    return dict(value)


def _named(what: str, value: Any) -> dict[str, str]:
    for name in value:
        check_name(what, name)
    return _texts(value)


def _as_compared(known: dict[str, Any]) -> dict[str, Any]:
    """`Embedding.comparable_by` from JSON, which knows no tuples."""
    layout = {name: tuple(entries) for name, entries in known.get("layout", {}).items()}
    return {**known, **({"layout": layout} if layout else {})}


def _read_arrays(path: Path, contents: Contents) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"the library lacks its file {path}")
    try:
        # tensors of torch are mapped into memory, so that a large library is read as far as it is used
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise ValueError("it is not part of a library")
            found = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: truncated, or foreign ({error})") from None
    for name in ("fisher", "mean_features"):
        array = found.get(name)
        if array is not None and (
            array.dtype != np.float32 or array.ndim != 2 or len(array) != len(contents.tasks)
        ):
            raise ValueError(
                f"{path} cannot be read: {name} is {array.dtype} {list(array.shape)}; expected float32 "
                f"[{len(contents.tasks)}, ...], a row for each task"
            )
    if contents.tasks and "fisher" not in found:
        raise ValueError(f"{path} cannot be read: it lacks fisher")
    contents.rows = TaskRows(found.get("fisher"), found.get("mean_features"))


def _read_results(path: Path, contents: Contents) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"the library lacks its file {path}")
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        try:
            if next(rows, None) != _COLUMNS:
                raise ValueError(f"its first line is not {','.join(_COLUMNS)}")
            for row in rows:
                result = _result(row)
                if result.task not in contents.tasks or result.expert not in contents.experts:
                    raise ValueError(f"no task {result.task!r} or no expert {result.expert!r} in the library")
                contents.results.put(result)
        except (ValueError, TypeError, csv.Error) as error:
            raise ValueError(f"{path}, line {rows.line_num}, cannot be read: {error}") from None


def _result(row: list[str]) -> Result:
    if len(row) != len(_COLUMNS):
        raise ValueError(f"{len(row)} values; expected {len(_COLUMNS)}")
    task, expert, kind, images, seed, error, stderr, failure = row
    protocol = Protocol(kind, *(int(text) if text else None for text in (images, seed)))  # type: ignore[arg-type]
    return Result(task, expert, protocol, float(error or "nan"), float(stderr or "nan"), failure)


def _write_results(path: Path, results: Iterable[Result]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for r in results:
            known = [None if value != value else repr(value) for value in (r.error, r.stderr)]
            protocol = r.protocol
            rows.writerow(
                [r.task, r.expert, protocol.kind, protocol.images, protocol.seed, *known, r.failure]
            )
