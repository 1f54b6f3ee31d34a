"""Figures of distances and embeddings, returned and never shown."""

from t2v_lightning.plots.distances import cluster, leaf_order, plot_dendrogram, plot_distance_matrix
from t2v_lightning.plots.profiles import plot_stage_profile
from t2v_lightning.plots.tasks import plot_norm_vs_error, plot_task_map

__all__ = [
    "cluster",
    "leaf_order",
    "plot_dendrogram",
    "plot_distance_matrix",
    "plot_norm_vs_error",
    "plot_stage_profile",
    "plot_task_map",
]
