"""Squared per-sample gradients of a network, from the torch function calls of its forward pass."""
