"""The picture of the table: points lost by each recommendation, with intervals over families."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from selection.table import HELD, Verdicts
from selection.verdict import interval

SHOWN = (
    "chance",
    "ImageNet always",
    "static list",
    "nearest expert, Task2Vec",
    "MODEL2VEC",
    "LogME",
    "LEEP",
    "PARC",
    "k-NN",
    "cross-validated probe",
    "kernel average, mixture",
    "kernel ridge, mixture",
    "kernel ridge, best 8 probed",
    "kernel ridge + probe, points",
)
"""Titles of the rows that the picture has room for."""
_COLOURS = {"task": "#1b6ca8", "family": "#d1703c"}
_WORDS = {"task": "similar tasks in the library", "family": "nothing of its family in the library"}


def draw_regrets(verdicts: Sequence[Verdicts], families: Sequence[str]) -> Figure:
    """One line for each row of `SHOWN`, best first, with 90 % intervals."""
    shown = [v for v in verdicts if v.row.title in SHOWN]
    order = sorted(shown, key=lambda v: float(np.mean([v.regrets[held].mean() for held in HELD])))
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(order) + 1.2), layout="constrained")
    for place, v in enumerate(order):
        for held, shift in zip(HELD, (-0.16, 0.16), strict=True):
            mean = float(v.regrets[held].mean())
            low, high = interval(v.regrets[held], families)
            axes.plot([low, high], [place + shift] * 2, color=_COLOURS[held], alpha=0.45, linewidth=2)
            axes.plot(mean, place + shift, "o", color=_COLOURS[held], markersize=5)
    axes.set_yticks(range(len(order)), [_title(v) for v in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("points of error lost against the best expert, 90 % intervals")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    for held in HELD:
        axes.plot([], [], "o-", color=_COLOURS[held], label=_WORDS[held])
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def _title(verdict: Verdicts) -> str:
    runs = {None: " (runs all experts)"}.get(verdict.row.passes, "")
    return verdict.row.title.replace("`", "") + runs
