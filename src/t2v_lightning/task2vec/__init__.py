"""One embedding from dataset to vector: in a plain loop, or as a LightningModule in a fit."""

from t2v_lightning.task2vec.callback import Task2VecCallback
from t2v_lightning.task2vec.many import embed_many
from t2v_lightning.task2vec.module import Task2Vec, embed

__all__ = ["Task2Vec", "Task2VecCallback", "embed", "embed_many"]
