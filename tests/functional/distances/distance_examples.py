"""Made-up embeddings, and the distances between them by plain formulas of one pair in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.spatial import distance as scipy_distance
from scipy.special import xlogy

from t2v_lightning.embedding import Embedding

OF_REFERENCE = ["cosine", "kl", "asymmetric_kl", "jsd", "normalized_cosine", "correlation", "entropy"]
NAMES = [*OF_REFERENCE, "cosine_unit"]


def oracle(name: str, a: Any, b: Any) -> float:
    """One pair, by the formulas as the reference writes them, over the entries that both have."""
    h0, h1 = np.asarray(a.fisher, float), np.asarray(b.fisher, float)
    if name == "cosine_unit":
        h0, h1 = (h * math.sqrt(len(h)) / np.linalg.norm(h) for h in (h0, h1))
    p, q = h0 / (h0 + h1 + 1e-8), h1 / (h0 + h1 + 1e-8)
    if name in ("cosine", "cosine_unit"):
        return float(scipy_distance.cosine(p, q))
    if name == "entropy":
        return float(math.log(2) + (xlogy(p, p) + xlogy(1 - p, 1 - p)).mean())
    keep = (h0 > 0) & (h1 > 0)
    v0, v1 = 1 / h0[keep], 1 / h1[keep]
    if name == "normalized_cosine":
        return float(scipy_distance.cosine(v0 * a.scale[keep], v1 * b.scale[keep]))
    if name == "correlation":
        return float(scipy_distance.correlation(v0, v1))

    def kl(v: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.asarray((v / w - 1 + np.log(w) - np.log(v)) / 2)

    mean = (v0 + v1) / 2
    return {
        "kl": float(np.maximum(kl(v0, v1), kl(v1, v0)).sum()),
        "asymmetric_kl": float(kl(v0, v1).sum()),
        "jsd": float(((kl(v0, mean) + kl(v1, mean)) / 2).mean()),
    }[name]


def make(count: int, size: int, seed: int = 0, dead: float = 0.0, spread: float = 1.0) -> list[Embedding]:
    generator = np.random.default_rng(seed)
    fisher = np.exp(generator.normal(-8, spread, (count, size)))
    fisher[generator.random((count, size)) < dead] = 0
    scale = np.exp(generator.normal(0, 1, (count, size)))
    return [Embedding(f, s) for f, s in zip(fisher, scale, strict=True)]


def correlated_task(seed: int, images: int, size: int = 40, level: float = 0.3) -> np.ndarray:
    """Values [images, size] of a task whose filters share what varies between images."""
    mean = np.exp(np.random.default_rng(seed).normal(-8, level, size))
    generator = np.random.default_rng(seed + 1000)
    common = generator.gamma(0.5, 2.0, (images, 1))
    return mean * (0.5 * common + 0.5 * generator.gamma(0.5, 2.0, (images, size)))


def with_groups(values: np.ndarray, weights: np.ndarray | None = None, groups: int = 16) -> Embedding:
    weights = np.ones(len(values)) if weights is None else weights
    group = np.random.default_rng(len(values)).integers(0, groups, len(values))
    sums = np.stack([(weights[group == g, None] * values[group == g]).sum(0) for g in range(groups)])
    totals = np.array([weights[group == g].sum() for g in range(groups)])
    fisher = sums.sum(0) / totals.sum()
    return Embedding(fisher, np.ones(values.shape[1]), group_sums=sums, group_weights=totals)
