"""Probe networks and where they come from."""

from t2v_lightning.probes.network import ProbeNetwork
from t2v_lightning.probes.registry import get_probe, list_probes

__all__ = ["ProbeNetwork", "get_probe", "list_probes"]
