"""The command line: one task, sweeps of many, the processes of both."""

from t2v_lightning.cli.run import main

__all__ = ["main"]
