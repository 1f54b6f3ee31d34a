"""Figures of distances and embeddings: drawn without a display, returned and never shown.

Every function takes the axis to draw on (`ax`), or makes a figure large enough for its text to be read. What becomes of
the figure (`figure.savefig("matrix.pdf")`, a logger) is up to the caller.
"""

from t2v_lightning.plots.distances import cluster, leaf_order, plot_dendrogram, plot_distance_matrix
from t2v_lightning.plots.diversity import plot_diversity
from t2v_lightning.plots.drift import plot_drift
from t2v_lightning.plots.profiles import plot_stage_profile
from t2v_lightning.plots.tasks import plot_norm_vs_error, plot_task_map

__all__ = [
    "cluster",
    "leaf_order",
    "plot_dendrogram",
    "plot_distance_matrix",
    "plot_diversity",
    "plot_drift",
    "plot_norm_vs_error",
    "plot_stage_profile",
    "plot_task_map",
]
