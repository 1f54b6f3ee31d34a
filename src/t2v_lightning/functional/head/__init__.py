"""The linear head of a task as a convex problem, and its optimum."""

from t2v_lightning.functional.head.calibration import best_sharpness, cross_fitted_outputs
from t2v_lightning.functional.head.newton import Batch, Progress, fit_newton, with_ones

__all__ = ["Batch", "Progress", "best_sharpness", "cross_fitted_outputs", "fit_newton", "with_ones"]
