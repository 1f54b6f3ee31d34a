"""The Trainer of a run, from its settings."""

import inspect
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from t2v_lightning._spelling import did_you_mean

_SET_ELSEWHERE = {
    "max_epochs": "the phases of a fit decide how many there are; see task2vec.head.epochs and task2vec.epochs",
    "logger": "set the group logger, such as logger=csv or ~logger",
    "callbacks": "call Trainer.fit in Python to add some",
    "default_root_dir": "set hydra.run.dir, or hydra.sweep.dir",
    "enable_model_summary": "there is none, as the probe is not trained",
}
"""Keywords of a Trainer that a run gives itself, and what a user can do instead."""


def make_trainer(settings: DictConfig, **own: Any) -> pl.Trainer:
    """A Trainer with the keywords of `trainer.*` and those of the run itself.

    Raises:
        ValueError: a keyword that a Trainer does not have or that the run sets itself, or a value that does not go with
            this machine.
    """
    options: dict[str, Any] = OmegaConf.to_container(settings, resolve=True)  # type: ignore[assignment]
    allowed = [name for name in inspect.signature(pl.Trainer.__init__).parameters if name != "self"]
    for name, value in options.items():
        if name in _SET_ELSEWHERE:
            raise ValueError(f"got trainer.{name}={value}, which a run sets itself: {_SET_ELSEWHERE[name]}")
        if name not in allowed:
            near = did_you_mean(name, allowed)
            raise ValueError(
                f"got trainer.{name}={value}; allowed are the keywords of pytorch_lightning.Trainer{near}"
            )
    try:
        return pl.Trainer(**options, **own)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        given = ", ".join(f"trainer.{name}={value}" for name, value in options.items())
        text = " ".join(str(error).split())
        raise ValueError(f"Lightning makes no Trainer with {given}: {text}") from error
