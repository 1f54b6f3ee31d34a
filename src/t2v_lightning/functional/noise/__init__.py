"""Gaussian noise on the weights of a network, with variances that are learned."""
