"""Squared per-sample gradients of a network that is watched while it runs."""
