"""How the embedding of a training run moved, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from t2v_lightning.plots.style import ACCENT, FAINT, INK, figure_of, new_axes


def plot_drift(
    history: Sequence[Mapping[str, float]], *, ax: Axes | None = None, title: str | None = None
) -> Figure:
    """Drift and norm of an embedding over the epochs of a training.

    Args:
        history: rows of `epoch`, `norm` and, from the second on, `drift`, as `Task2VecCallback.history` has them.
        ax: the axis to draw on, which gets a second scale on its right; by default a new figure.
        title: none by default.

    Raises:
        ValueError: there are no rows.

    >>> rows = [{"epoch": 0, "norm": 2.0}, {"epoch": 1, "norm": 2.5, "drift": 0.3}]
    >>> [axis.get_ylabel() for axis in plot_drift(rows).axes]
    ['drift since the embedding before', 'norm']
    """
    if not history:
        raise ValueError(
            "there is no embedding to draw; the history of a run begins with its first embedding"
        )
    ax = new_axes(6, 3.6) if ax is None else ax
    figure, norms = figure_of(ax), ax.twinx()
    moved = [row for row in history if "drift" in row]
    ax.plot([row["epoch"] for row in moved], [row["drift"] for row in moved], "o-", color=ACCENT)
    norms.plot([row["epoch"] for row in history], [row["norm"] for row in history], "s--", color=FAINT)
    ax.set_ylabel("drift since the embedding before", color=ACCENT)
    norms.set_ylabel("norm", color=INK)
    ax.set(xlabel="epoch", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if title:
        ax.set_title(title)
    return figure
