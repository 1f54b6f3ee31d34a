"""Ways to rank experts for a task, each a function of plain arrays: `Evidence` and a `Query` to a `Prediction`."""

from t2v_lightning.library.additive import additive_fit
from t2v_lightning.library.evidence import Evidence, Prediction, Query
from t2v_lightning.library.methods.expert_embedding import (
    ExpertEmbedding,
    ExpertEmbeddingModule,
    expert_embedding,
    task_coordinates,
    train_experts,
)
from t2v_lightning.library.methods.kernel_average import Kernel, kernel_average
from t2v_lightning.library.methods.kernel_ridge import Ridge, kernel_ridge
from t2v_lightning.library.methods.nearest_expert import nearest_expert
from t2v_lightning.library.methods.ridge_tuning import left_out_errors, tune_ridge
from t2v_lightning.library.methods.static_list import static_list
from t2v_lightning.library.methods.with_scores import with_scores

__all__ = [
    "Evidence",
    "ExpertEmbedding",
    "ExpertEmbeddingModule",
    "Kernel",
    "Prediction",
    "Query",
    "Ridge",
    "additive_fit",
    "expert_embedding",
    "kernel_average",
    "kernel_ridge",
    "left_out_errors",
    "nearest_expert",
    "static_list",
    "task_coordinates",
    "train_experts",
    "tune_ridge",
    "with_scores",
]
