"""Pure tensor functions: no Lightning, no files, no global state."""

from t2v_lightning.functional.filterwise import filterwise_fisher

__all__ = ["filterwise_fisher"]
