"""The parts of an embedding's making, one after another; plain torch, driven from outside."""

from t2v_lightning.phases.base import LogMetrics, Metrics, Phase, State, no_log
from t2v_lightning.phases.features import FeaturesPhase
from t2v_lightning.phases.head import HeadFit, fit_head
from t2v_lightning.phases.montecarlo import MonteCarloPhase, fisher_of_filters
from t2v_lightning.phases.options import HeadOptions, VariationalFit, VariationalOptions
from t2v_lightning.phases.variational import VariationalPhase, noisy_filters

__all__ = [
    "FeaturesPhase",
    "HeadFit",
    "HeadOptions",
    "LogMetrics",
    "Metrics",
    "MonteCarloPhase",
    "Phase",
    "State",
    "VariationalFit",
    "VariationalOptions",
    "VariationalPhase",
    "fisher_of_filters",
    "fit_head",
    "no_log",
    "noisy_filters",
]
