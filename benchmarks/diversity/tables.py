from pathlib import Path


def print_tables(folder: Path) -> None:
    pass
