"""Errors in the words of the command line: `task2vec.num_samples=0`, where Python says `num_samples=0`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_SECTIONS = ("dataset", "probe", "task2vec", "trainer")
_NAMED = re.compile(r"(?<![\w./'(-])(?:head )?(?P<name>[a-z]\w*)(?==)")
_MUST = re.compile(r"^(?P<name>[a-z]\w*)(?= must )")
_UNKNOWN = re.compile(r"(?<=^unknown )(?P<name>[a-z]\w*)(?= ')")
_OF_TRAINER = re.compile(r"Trainer\((\w+=[^)]*)\)")


def in_settings(text: str, config: Mapping[str, Any], words: Iterable[str]) -> str:
    """A message with the full names of settings.

    A name that several sections have is that of the setting which was typed, or stays as it is.

    Args:
        text: of the error.
        config: settings of the run.
        words: typed, such as `task2vec.passes=0`.

    >>> config = {"task2vec": {"passes": 0, "seed": 0}, "probe": {"seed": 0}}
    >>> in_settings("passes=0; at least one pass is needed", config, ["task2vec.passes=0"])
    'task2vec.passes=0; at least one pass is needed'
    >>> in_settings("seed must be a whole number, got 'x'", config, ["probe.seed=x"])
    "probe.seed must be a whole number, got 'x'"
    """
    names: dict[str, list[str]] = {}
    for section in _SECTIONS:
        for name, full in _names(config.get(section) or {}, section):
            names.setdefault(name, []).append(full)
    typed = {word.lstrip("+~").partition("=")[0] for word in words}

    def in_full(match: re.Match[str]) -> str:
        candidates = names.get(match["name"], [])
        of_head = [name for name in candidates if ".head." in name and match[0].startswith("head ")]
        chosen = of_head or [name for name in candidates if name in typed] or candidates
        return chosen[0] if len(chosen) == 1 else match[0]

    text = _OF_TRAINER.sub(r"trainer.\1", text)
    for pattern in (_NAMED, _MUST, _UNKNOWN):
        text = pattern.sub(in_full, text)
    return text


def _names(settings: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    """Names and full names; what has parts, such as the head, is chosen by its `method`."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield key, f"{prefix}.{key}.method"
            yield from _names(value, f"{prefix}.{key}")
        else:
            yield key, f"{prefix}.{key}"
