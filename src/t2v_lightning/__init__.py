"""Task2Vec on PyTorch Lightning: task embeddings from the Fisher information of a pretrained probe."""

from t2v_lightning._version import __version__
from t2v_lightning.diversity import cross_diversity_coefficient, diversity_coefficient
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.frames import to_pandas
from t2v_lightning.metrics import FilterwiseFisher
from t2v_lightning.probes import ProbeNetwork, get_probe
from t2v_lightning.task2vec.callback import Task2VecCallback
from t2v_lightning.task2vec.many import embed_many
from t2v_lightning.task2vec.module import Task2Vec, embed

__all__ = [
    "Embedding",
    "FilterwiseFisher",
    "ProbeNetwork",
    "Task2Vec",
    "Task2VecCallback",
    "__version__",
    "cross_diversity_coefficient",
    "diversity_coefficient",
    "embed",
    "embed_many",
    "get_probe",
    "to_pandas",
]
