"""The profile of embeddings over the layers of their probe."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from t2v_lightning.plots.style import (
    FAINT,
    INK,
    Matrix,
    add_legend,
    check_lengths,
    family_colours,
    new_axes,
    plain,
    settle,
    text_size,
)

_FEW_PROFILES = 12
"""Up to this many profiles have a name each; more have the colours of their families."""

_MOST_LAYERS = 0.75
"""Share of the layers above which a stage is split into its parts: its name would not say where a layer is."""


def plot_stage_profile(
    embeddings: Sequence[Any],
    names: Sequence[str] | None = None,
    *,
    families: Sequence[str] | None = None,
    stages: Sequence[str] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Figure:
    """Mean Fisher of every layer from input to output; the median for the variational method.

    There, the few filters with almost no weights bear almost no noise and would dominate the mean of a layer.

    Up to twelve embeddings get a line and a name each, with a band of two standard errors where known. More
    are drawn as thin lines, with the median of each family, or of all of them, in bold.

    Args:
        embeddings: embeddings of one layout, with `layers`.
        names: names for the legend; by default the embeddings' `task_name`.
        families: names of groups of related tasks, one for each embedding, which colour the lines of more
            than twelve.
        stages: names of the stages, such as `ProbeNetwork.stages`; by default what the layers' names begin with.
        ax: the axis to draw on; by default a new figure.
        title: the title; by default the name of a single embedding, which then has no legend.

    Raises:
        ValueError: no embeddings, no layout, unequal layouts, or names or families of another number.

    >>> from t2v_lightning.embedding import Embedding
    >>> layers = {"backbone.conv1": slice(0, 1), "backbone.layer1.conv": slice(1, 3)}
    >>> figure = plot_stage_profile([Embedding([1, 2, 3], [1, 1, 1], layers=layers)], ["digits"])
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['conv1', 'layer1']
    """
    layers = _common_layers(embeddings)
    if names is None:
        names = [embedding.task_name or str(i) for i, embedding in enumerate(embeddings)]
    check_lengths(len(embeddings), names=names, families=families)
    names = [plain(name) for name in names]
    few, alone = len(embeddings) <= _FEW_PROFILES, len(embeddings) == 1
    if ax is None:
        beside = (text_size(max(names, key=len), 9)[0] / 72 + 0.6) if few and not alone else 0
        ax = new_axes(max(4.4 if few else 7, 0.13 * len(layers) + 1.6) + beside, 3.6 if few else 4.8)
    noisy = embeddings[0].meta.get("method") == "variational"
    middle = np.median if noisy else np.mean
    means = np.array([[middle(e.fisher[entries]) for entries in layers.values()] for e in embeddings])
    means[means == 0] = np.nan  # a dead layer has no place on a logarithmic axis
    ax.set_yscale("log")
    if few:
        _draw_profiles(ax, embeddings, means, names, layers)
    else:
        _draw_many_profiles(ax, means, families)
    if not np.isnan(means).all():
        ax.set_ylim(np.nanmin(means) / 3, np.nanmax(means) * 3)
    ax.set(
        xlim=(-0.5, len(layers) - 0.5),
        ylabel="median precision of a filter's noise" if noisy else "mean Fisher of a filter",
    )
    ax.tick_params(axis="y", which="both", labelsize=9, color=FAINT, labelcolor=INK)
    ax.spines[:].set_visible(False)
    _draw_stages(ax, stage_labels(list(layers), stages))
    return settle(ax, names[0] if alone and title is None else title)


def _draw_profiles(
    ax: Axes, embeddings: Sequence[Any], means: Matrix, names: Sequence[str], layers: dict[str, slice]
) -> None:
    colours = family_colours([str(i) for i in range(len(names))]).values()
    for embedding, mean, name, colour in zip(embeddings, means, names, colours, strict=True):
        ax.plot(mean, "o-", ms=2.5, lw=1.2, color=colour, label=name)
        if embedding.stderr is not None:
            # Filters of one layer see the same images: their errors are taken as fully correlated.
            spread = 2 * np.array([embedding.stderr[entries].mean() for entries in layers.values()])
            low = np.maximum(mean - spread, mean / 100)
            ax.fill_between(range(len(mean)), low, mean + spread, color=colour, alpha=0.2, lw=0)
    if len(names) > 1:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def _draw_many_profiles(ax: Axes, means: Matrix, families: Sequence[str] | None) -> None:
    groups = families or [f"median of {len(means)} tasks"] * len(means)
    colours = family_colours(sorted(set(groups)))
    thin = float(np.interp(len(means), [20, 200], [0.5, 0.2]))
    for mean, group in zip(means, groups, strict=True):
        ax.plot(mean, lw=0.7, color=colours[group], alpha=thin)
    for group, colour in colours.items():
        members = [mean for mean, other in zip(means, groups, strict=True) if other == group]
        ax.plot(np.nanmedian(members, axis=0), "o-", ms=2.5, lw=1.8, color=colour)
    add_legend(ax, colours, 8)


def _draw_stages(ax: Axes, labels: Sequence[str]) -> None:
    """Bands behind every second stage, and the names of the stages, turned upright where they would touch."""
    starts = [i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
    stops = [*starts[1:], len(labels)]
    for start, stop in list(zip(starts, stops, strict=True))[::2]:
        ax.axvspan(start - 0.5, stop - 0.5, color="#f3f3f3", lw=0, zorder=0)
    centres = [(start + stop - 1) / 2 for start, stop in zip(starts, stops, strict=True)]
    shown = [plain(labels[start]) for start in starts]
    ax.set_xticks(centres, shown, fontsize=9, color=INK)
    ax.tick_params(axis="x", length=0)
    figure = settle(ax, None)
    layer = ax.get_position().width * figure.get_figwidth() * 72 / len(labels)
    widths = [float(text_size(name, 9)[0]) for name in shown]
    touching = any(
        (right - left) * layer < (one + other) / 2 + 4
        for (left, right), (one, other) in zip(pairwise(centres), pairwise(widths), strict=True)
    )
    if touching:
        room = layer * min(right - left for left, right in pairwise(centres))  # points from name to name
        ax.tick_params(axis="x", labelrotation=90, labelsize=float(np.clip(0.85 * room, 5, 9)))


def _common_layers(embeddings: Sequence[Any]) -> dict[str, slice]:
    layers = [dict(embedding.layers) for embedding in embeddings]
    if not layers or not layers[0]:
        raise ValueError("a profile needs embeddings that know their layers; got none")
    if any(other != layers[0] for other in layers):
        raise ValueError("a profile needs embeddings of one layout; these differ in their layers")
    return layers[0]


def stage_labels(layers: Sequence[str], stages: Sequence[str] | None = None) -> list[str]:
    """The name of the stage of each layer, or its own where none of `stages` holds it.

    By default the stages are what the layers' names begin with, except that one with almost all layers is split into
    its parts.

    >>> stage_labels(["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1"])
    ['conv1', 'layer1', 'layer1', 'layer2']
    >>> stage_labels(["stem", "blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.1.b"])
    ['stem', 'blocks.0', 'blocks.0', 'blocks.1', 'blocks.1']
    """
    names = [layer.removeprefix("backbone.") for layer in layers]
    if stages is not None:
        return [next((s for s in stages if f"{name}.".startswith(f"{s}.")), name) for name in names]
    labels = [name.split(".")[0] for name in names]
    largest = max(labels, key=labels.count, default="")
    while labels.count(largest) > _MOST_LAYERS * len(labels) and set(labels) != set(names):
        depth = largest.count(".") + 2
        labels = [
            ".".join(name.split(".")[:depth]) if label == largest else label
            for label, name in zip(labels, names, strict=True)
        ]
        largest = max(labels, key=labels.count)
    return labels
