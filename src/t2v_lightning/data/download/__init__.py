"""Fetching benchmarks: the command `python -m t2v_lightning.data.download`, and what it is made of."""
