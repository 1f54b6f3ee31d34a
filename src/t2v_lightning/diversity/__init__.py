"""How diverse a dataset is: the mean distance between its batches, and what it is compared with."""

from t2v_lightning.diversity.coefficient import cross_diversity_coefficient, diversity_coefficient
from t2v_lightning.diversity.embedded import EmbeddedBatches, embed_batches
from t2v_lightning.diversity.result import CrossDiversity, DatasetDiversity

__all__ = [
    "CrossDiversity",
    "DatasetDiversity",
    "EmbeddedBatches",
    "cross_diversity_coefficient",
    "diversity_coefficient",
    "embed_batches",
]
