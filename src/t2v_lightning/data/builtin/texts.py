"""Built-in tasks of texts: docstrings and source code of Python packages that this one is installed with.

Nothing is imported or run: files are parsed. Texts differ with the versions of the packages.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from t2v_lightning.data.errors import MissingDataError
from t2v_lightning.data.task import Task

Kind = Literal["docstring", "code"]

_SHORTEST, _LONGEST = 120, 800
"""Characters of a text; longer ones are cut off, shorter ones say little."""

_A_FILE = 4
"""Most texts from one file."""

_TRAIN, _TEST = 240, 100
"""Texts of a split, which its classes share equally."""


def package_task(kind: Kind, packages: Sequence[str], split: str) -> Task[str]:
    """Tells which package a docstring, or the source code of a function without its docstring, is from.

    >>> task = package_task("docstring", ["numpy", "scipy"], "test")
    >>> task.names, task.labels.shape
    (('numpy', 'scipy'), (100,))
    """
    return _task({package: _texts(package, kind, split) for package in packages}, split)


def kind_task(packages: Sequence[str], split: str) -> Task[str]:
    """Tells docstrings from source code, whichever package they are from."""
    texts: dict[str, list[str]] = {}
    for kind in ("docstring", "code"):
        columns = zip(*(_texts(package, kind, split) for package in packages), strict=False)
        texts[kind] = [text for column in columns for text in column]
    return _task(texts, split)


def _task(texts: dict[str, list[str]], split: str) -> Task[str]:
    count = (_TRAIN if split == "train" else _TEST) // len(texts)
    for name, found in texts.items():
        if len(found) < count:
            raise MissingDataError(
                f"found {len(found)} texts of {name}, and {count} are needed: install it again"
            )
    labels = np.repeat(np.arange(len(texts)), count)
    return Task([text for found in texts.values() for text in found[:count]], labels, tuple(texts))


@cache
def _texts(package: str, kind: Kind, split: str) -> list[str]:
    """As many texts as a task of two classes needs; every third file is of the test split."""
    count = (_TRAIN if split == "train" else _TEST) // 2
    found: dict[str, None] = {}  # in order, each once
    for number, file in enumerate(_files(package)):
        if (number % 3 == 2) == (split == "test"):
            found.update(dict.fromkeys(list(_of_file(file, kind))[:_A_FILE]))
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
