"""The violins of several results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from t2v_lightning.diversity.result import DatasetDiversity, check_comparable
from t2v_lightning.plots import plot_diversity


def draw(results: Sequence[DatasetDiversity]) -> Figure:
    """`plot_diversity` of results that compare, with the widest of the bounds that were measured.

    Raises:
        ValueError: the results differ in a setting, or two have one name.
    """
    check_comparable(results)
    pairs = {result.name: result.pairs for result in results}
    if len(pairs) < len(results):
        raise ValueError(f"results need names of their own, got {', '.join(r.name for r in results)}")
    bounds = [
        (r.lower.coefficient, r.upper.coefficient)
        for r in results
        if r.lower is not None and r.upper is not None
    ]
    ends = (float(np.min(bounds)), float(np.max(bounds))) if bounds else None
    return plot_diversity(pairs, [r.stderr for r in results], [r.noise for r in results], ends)
