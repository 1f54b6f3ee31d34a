"""Names of datamodules that stand for others."""

ALIASES: dict[str, str] = {"letters": "emnist_letters", "imat2018fashion": "imat2018_fashion"}
"""Other names that `get_datamodule` takes, with the names that they stand for."""
