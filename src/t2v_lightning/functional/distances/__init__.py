"""Distances between task embeddings, with their standard errors."""

from t2v_lightning.functional.distances.pairwise import DISTANCES, cdist, noise_floor, pdist

__all__ = ["DISTANCES", "cdist", "noise_floor", "pdist"]
