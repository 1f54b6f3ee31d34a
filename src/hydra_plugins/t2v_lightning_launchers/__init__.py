"""Launchers of `cli`, here because Hydra takes launchers from this namespace only."""
