"""An embedding: its values, its files, and folders of them."""

from t2v_lightning.embedding.value import Embedding

__all__ = ["Embedding"]
