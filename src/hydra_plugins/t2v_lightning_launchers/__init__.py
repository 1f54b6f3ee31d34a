"""Hydra finds launchers in this namespace alone. Every Hydra program imports it, so nothing here is slow to import."""
