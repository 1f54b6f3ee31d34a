"""The stages of computing an embedding, one after another; plain torch, driven from outside."""

from t2v_lightning.phases.base import LogMetrics, MethodPhase, Metrics, Phase, State, no_log
from t2v_lightning.phases.features import FeaturesPhase
from t2v_lightning.phases.head import HeadFit, fit_head
from t2v_lightning.phases.kept_head import KeptHeadPhase
from t2v_lightning.phases.methods import METHODS, method_options
from t2v_lightning.phases.montecarlo import MonteCarloPhase, fisher_of_filters
from t2v_lightning.phases.options import HeadOptions, MonteCarloOptions, VariationalOptions
from t2v_lightning.phases.variational import VariationalFit, VariationalPhase, noisy_filters

__all__ = [
    "METHODS",
    "FeaturesPhase",
    "HeadFit",
    "HeadOptions",
    "KeptHeadPhase",
    "LogMetrics",
    "MethodPhase",
    "Metrics",
    "MonteCarloOptions",
    "MonteCarloPhase",
    "Phase",
    "State",
    "VariationalFit",
    "VariationalOptions",
    "VariationalPhase",
    "fisher_of_filters",
    "fit_head",
    "method_options",
    "no_log",
    "noisy_filters",
]
