"""What `t2v list` prints: names, and what each stands for where that is said without loading torch."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping

from t2v_lightning.cli.settings import presets


def _datasets() -> Mapping[str, str]:
    return presets("dataset")


def _downloads() -> Mapping[str, str]:
    from t2v_lightning.data.download.catalogue import CATALOGUE

    return {name: presets("dataset").get(name, "") for name in CATALOGUE}


def _probes() -> Mapping[str, str]:
    from t2v_lightning.probes import list_probes

    known = presets("probe")
    return known | {name: "" for name in list_probes() if name not in known}


DISTANCES = {
    "cosine": "of vectors that are divided, entry by entry, by the sum of both: the paper's",
    "kl": "the larger of both Kullback-Leibler divergences, summed over entries",
    "asymmetric_kl": "the divergence of the row's task from the column's",
    "jsd": "the mean divergence of both from their mean",
    "normalized_cosine": "of variances in units of the prior",
    "correlation": "one minus the correlation of variances",
    "entropy": "log 2 minus the mean entropy of the entries' shares in their sum",
    "asymmetric": "cosine less a part of the first task's distance from the trivial one: the paper's",
    "cosine_unit": "cosine of vectors scaled to one length: what commands take by default",
}
"""The names of `functional.distances.DISTANCES`, which loads torch, and what they stand for."""


LISTS: dict[str, Callable[[], Mapping[str, str]]] = {
    "datasets": _datasets,
    "downloads": _downloads,
    "probes": _probes,
    "distances": lambda: DISTANCES,
}


def print_list(what: str) -> None:
    """Prints a line for each name; on a terminal what is said of it goes on below, where it is long.

    >>> print_list("datasets")
    cifar10                     Which of ten kinds of things, in 32 x 32 pixels?
    ...
    """
    names = LISTS[what]()
    left = max(map(len, names)) + 2
    right = shutil.get_terminal_size().columns - left if sys.stdout.isatty() else sys.maxsize
    for name, about in names.items():
        first, *more = textwrap.wrap(about, max(right, 20)) or [""]
        print(f"{name:<{left}}{first}".rstrip())
        for line in more:
            print(" " * left + line)
