"""Fetching benchmarks: `python -m t2v_lightning.data.download`."""
