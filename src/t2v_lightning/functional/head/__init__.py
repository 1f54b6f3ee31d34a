"""The linear head of a task as a convex problem, and its optimum."""

from t2v_lightning.functional.head.newton import Batch, Progress, fit_newton, with_ones

__all__ = ["Batch", "Progress", "fit_newton", "with_ones"]
