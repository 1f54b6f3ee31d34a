"""What the shell offers for a word of `t2v`; files and folders are what it offers itself."""

from __future__ import annotations

from t2v_lightning.cli.lists import LISTS
from t2v_lightning.cli.settings import presets


def complete_task(incomplete: str) -> list[str]:
    """Names of datasets that begin like this.

    >>> complete_task("digits_l")
    ['digits_low']
    """
    return [name for name in presets("dataset") if name.startswith(incomplete)]


def complete_probe(incomplete: str) -> list[str]:
    """Names of probes that begin like this: those that have a file, as all others take seconds to list."""
    return [name for name in presets("probe") if name.startswith(incomplete)]


def complete_distance(incomplete: str) -> list[str]:
    """Names of distances that begin like this."""
    return [name for name in LISTS["distances"]() if name.startswith(incomplete)]


def complete_list(incomplete: str) -> list[str]:
    """Names of lists that begin like this."""
    return [name for name in LISTS if name.startswith(incomplete)]
