"""Built-in tasks of texts: docstrings and source code of Python packages that this one is installed with.

Nothing is imported or run: files are parsed. Texts differ with the versions of the packages.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from t2v_lightning.data.errors import MissingDataError
from t2v_lightning.data.task import Task

Kind = Literal["docstring", "code"]

_SHORTEST, _LONGEST = 120, 800
"""Characters of a text; longer ones are cut off, shorter ones say little."""

_A_FILE = 8
"""Most texts from one file."""

_SIZES = {"train": 240, "test": 100}
"""Texts of a split, which its classes share equally."""

_SPARE = 30
"""Texts that may turn out to be in two classes, or in both splits."""


def package_task(kind: Kind, packages: Sequence[str], split: str) -> Task[str]:
    """Tells which package a docstring, or the source code of a function without its docstring, is from.

    >>> task = package_task("docstring", ["numpy", "scipy"], "test")
    >>> task.names, task.labels.shape
    (('numpy', 'scipy'), (100,))
    """

    def texts(split: str) -> dict[str, list[str]]:
        return {package: _texts(package, kind, split) for package in packages}

    return _task(texts, split)


def kind_task(packages: Sequence[str], split: str) -> Task[str]:
    """Tells docstrings from source code, whichever package they are from."""

    def texts(split: str) -> dict[str, list[str]]:
        kinds: tuple[Kind, ...] = ("docstring", "code")
        return {
            kind: [text for column in _columns(packages, kind, split) for text in column] for kind in kinds
        }

    return _task(texts, split)


def _columns(packages: Sequence[str], kind: Kind, split: str) -> Iterator[tuple[str, ...]]:
    """A text of each package in turn."""
    return zip(*(_texts(package, kind, split) for package in packages), strict=False)


def _task(texts: Callable[[str], dict[str, list[str]]], split: str) -> Task[str]:
    """Equally many texts of each class, none of which is in two classes, or in the train split too."""
    found, count = texts(split), _SIZES[split] // len(texts(split))
    times = Counter(text for own in found.values() for text in own)
    shared = {text for text, occurs in times.items() if occurs > 1}
    if split == "test":
        shared.update(text for own in texts("train").values() for text in own)
    samples: list[str] = []
    for name, own in found.items():
        kept = [text for text in own if text not in shared][:count]
        if len(kept) < count:
            raise MissingDataError(
                f"found {len(kept)} texts of {name}, and {count} are needed: install it again"
            )
        samples += kept
    return Task(samples, np.repeat(np.arange(len(found)), count), tuple(found))


@cache
def _texts(package: str, kind: Kind, split: str) -> list[str]:
    """As many texts as a task of two classes needs, and some more; every third file is of the test split."""
    count = _SIZES[split] // 2 + _SPARE
    found: dict[str, None] = {}  # in order, each once
    for number, file in enumerate(_files(package)):
        if (number % 3 == 2) == (split == "test"):
            found.update(dict.fromkeys(islice(_of_file(file, kind), _A_FILE)))
        if len(found) >= count:
            break
    return list(found)[:count]


@cache
def _files(package: str) -> list[Path]:
    """Its Python files but for tests, in an order that mixes its parts and stays the same."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDataError(
            f"the texts of this task are from {package}, which is not installed: pip install it"
        )
    root = Path(spec.submodule_search_locations[0])
    names = [str(file.relative_to(root)) for file in root.rglob("*.py")]
    own = [name for name in names if not any(part.startswith(("test", "_test")) for part in Path(name).parts)]
    return [root / name for name in sorted(own, key=lambda name: hashlib.sha256(name.encode()).digest())]


def _of_file(file: Path, kind: Kind) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):  # written for another version of Python
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node)
            if kind == "code":
                node.body = node.body[docstring is not None :] or [ast.Pass()]
            text = ast.unparse(node) if kind == "code" else docstring or ""
            if len(text) >= _SHORTEST:
                yield text[:_LONGEST]
