"""The linear head of a task as a convex problem, its optimum, and the optima without some of the samples."""

from t2v_lightning.functional.head.newton import Batch, Progress, fit_newton, in_row_space, with_ones
from t2v_lightning.functional.head.refits import Refits, refit_without_groups

__all__ = [
    "Batch",
    "Progress",
    "Refits",
    "fit_newton",
    "in_row_space",
    "refit_without_groups",
    "with_ones",
]
