"""Embeddings that `t2v compare` prints the distances of: those that are there, and those of tasks made on the spot."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from t2v_lightning.cli.advising import embed_like
from t2v_lightning.cli.settings import CONFIGS, defaults, presets
from t2v_lightning.cli.sources import embeddings_in, source_of
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.collection import load_embeddings
from t2v_lightning.probes import ProbeNetwork, get_probe
from t2v_lightning.task2vec.module import embed
from t2v_lightning.task2vec.sources import as_task


def embeddings_of(places: Sequence[str], probe: str | None, max_samples: int) -> list[Embedding]:
    """The embeddings in places, and after them those of the tasks among the places.

    Args:
        places: folders of runs or sweeps, files of embeddings, and tasks as `t2v embed` takes them.
        probe: that tasks are embedded with; None takes that of the embeddings that are there, in their way, or where
            there are none that of `t2v embed`.
        max_samples: most images of a task.

    Raises:
        ValueError, OSError: a place is none of these; it is found before any task is embedded.
    """
    saved = {place: embeddings_in(place) for place in places}
    tasks = {place: source_of(place) for place, files in saved.items() if not files}
    opened = {place: as_task(place) for place in tasks}
    files = [file for found in saved.values() for file in found]
    embeddings = load_embeddings(files) if files else []
    like = embeddings[0].meta if embeddings and probe is None else None
    for place, source in opened.items():
        if like is not None:
            embedding = embed_like(source, like, max_samples)
        else:
            name = probe or ("minilm" if tasks[place].is_text else defaults()["probe"])
            embedding = embed(source, probe_of(name), max_samples=max_samples)
        embeddings.append(embedding.with_meta(task_name=tasks[place].name))
    return embeddings


def probe_of(name: str) -> ProbeNetwork:
    """The probe that `probe=name` makes on the command line: by the file of that name, or by the name itself."""
    options: Any = {"name": name}
    if name in presets("probe"):
        options = OmegaConf.to_container(OmegaConf.load(CONFIGS / "probe" / f"{name}.yaml"))
    return get_probe(**options)
