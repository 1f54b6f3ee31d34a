"""Advice on experts at the end of a run: `library=FOLDER recommend=true`."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from t2v_lightning.cli.sweep import say
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.run_folder import ADVICE_FILE, EMBEDDING_FILE
from t2v_lightning.library import TaskLibrary
from t2v_lightning.library.advice_file import write_advice
from t2v_lightning.library.files import LIBRARY_FILE
from t2v_lightning.library.tables import print_recommendation


def check_library(config: DictConfig) -> None:
    """Raises before any work where a run is to end in advice that it cannot have.

    Raises:
        ValueError: there is no library to ask.
    """
    if not config.recommend:
        return
    if config.library is None:
        raise ValueError("got recommend=true without a library; give its folder as library=")
    if not (Path(config.library) / LIBRARY_FILE).is_file():
        raise ValueError(
            f"library={config.library} holds no library; python -m t2v_lightning.library build makes one"
        )


def advise(config: DictConfig, folder: Path) -> None:
    """Prints which experts suit the task that is embedded in a folder, and writes `recommendation.json` there."""
    embedding = Embedding.load(folder / EMBEDDING_FILE)
    found = TaskLibrary(config.library).recommend(embedding)
    write_advice(found, folder / ADVICE_FILE)
    print_recommendation(found, Console())
    say(f"the advice is in {folder / ADVICE_FILE}")
