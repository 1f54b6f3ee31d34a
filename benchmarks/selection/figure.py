"""The picture of the table: points lost by each recommendation, with intervals over families."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from selection.table import HELD, Verdicts
from selection.verdict import interval

_COLOURS = {"task": "#1b6ca8", "family": "#d1703c"}
_WORDS = {"task": "similar tasks in the library", "family": "nothing of its family in the library"}


def draw_regrets(verdicts: Sequence[Verdicts], families: Sequence[str]) -> Figure:
    """One line for each row, best first, with 90 % intervals."""
    order = sorted(verdicts, key=lambda v: float(np.mean([v.regrets[held].mean() for held in HELD])))
    figure, axes = plt.subplots(figsize=(8, 0.27 * len(order) + 1.1), layout="constrained")
    for place, v in enumerate(order):
        for held, shift in zip(HELD, (-0.16, 0.16), strict=True):
            mean = float(v.regrets[held].mean())
            low, high = interval(v.regrets[held], families)
            axes.plot([low, high], [place + shift] * 2, color=_COLOURS[held], alpha=0.45, linewidth=2)
            axes.plot(mean, place + shift, "o", color=_COLOURS[held], markersize=5)
    axes.set_yticks(range(len(order)), [_title(v) for v in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("points of error lost against the best of all experts (90 % interval over families)")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    for held in HELD:
        axes.plot([], [], "o-", color=_COLOURS[held], label=_WORDS[held])
    axes.legend(loc="lower right", frameon=False)
    return figure


def _title(verdict: Verdicts) -> str:
    runs = {0: "", None: " (runs all experts)"}.get(verdict.row.passes, f" (runs {verdict.row.passes})")
    return verdict.row.title.replace("`", "") + runs
