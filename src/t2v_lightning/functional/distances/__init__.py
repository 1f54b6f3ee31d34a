"""Distances between task embeddings, with their standard errors."""

from t2v_lightning.functional.distances.diversity import (
    Diversity,
    diversity_coefficient,
    mean_between,
    mean_of_pairs,
    vendi_score,
)
from t2v_lightning.functional.distances.pairwise import DISTANCES, cdist, noise_floor, pdist

__all__ = [
    "DISTANCES",
    "Diversity",
    "cdist",
    "diversity_coefficient",
    "mean_between",
    "mean_of_pairs",
    "noise_floor",
    "pdist",
    "vendi_score",
]
