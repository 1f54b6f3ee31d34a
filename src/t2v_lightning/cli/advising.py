"""Advice on experts at the end of a run: `library=FOLDER recommend=true`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from t2v_lightning.cli.sources import embeddings_in
from t2v_lightning.cli.sweep import say
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.collection import load_embeddings
from t2v_lightning.embedding.run_folder import ADVICE_FILE, EMBEDDING_FILE
from t2v_lightning.library import Protocol, TaskLibrary
from t2v_lightning.library.advice_file import write_advice
from t2v_lightning.library.asking import one_protocol
from t2v_lightning.library.builtin import BUILTIN, INPUT_SIZE, open_library
from t2v_lightning.library.measure import Images
from t2v_lightning.library.tables import print_recommendation
from t2v_lightning.library.trying import features_of
from t2v_lightning.probes import get_probe
from t2v_lightning.probes.text_transform import TextTransform
from t2v_lightning.task2vec.module import embed
from t2v_lightning.task2vec.sources import as_task

_OPTIONS = ("method", "sampling", "include", "skip_layers", "token_table")
"""Options of `embed` that two embeddings must share to be compared."""


def check_library(config: DictConfig) -> None:
    """Raises before any work where a run is to end in advice that it cannot have.

    Raises:
        ValueError, FileNotFoundError: there is no library to ask, or it has no results of the protocol, or results of
            several and no protocol is named.
    """
    if not config.recommend:
        return
    if config.library is None:
        raise ValueError("got recommend=true without a library; give its folder as library=")
    protocol_of(open_library(config.library), config.protocol)


def advise(config: DictConfig, folder: Path) -> None:
    """Prints which experts suit the task that is embedded in a folder, and writes `recommendation.json` there."""
    embedding, library = Embedding.load(folder / EMBEDDING_FILE), open_library(config.library)
    found = library.recommend(embedding, protocol=protocol_of(library, config.protocol))
    write_advice(found, folder / ADVICE_FILE)
    print_recommendation(found, Console())
    say(f"the advice is in {folder / ADVICE_FILE}")


def protocol_of(library: TaskLibrary, text: str | None) -> Protocol:
    """The protocol whose results advice rests on, from its text, or the only one that a library has.

    Raises:
        ValueError: the text is no protocol, or the library has none or several and no text says which one.
    """
    return one_protocol(library.protocols, None if text is None else Protocol.parse(str(text)))


def embedding_for(task: str, library: TaskLibrary, max_samples: int = 1000) -> Embedding:
    """The embedding of a task, made in the way of those of a library where there is none yet.

    Args:
        task: the folder of a run, the file of an embedding, or what `t2v_lightning.embed` takes for a task.
        library: says which probe it was made with, and at which size of images.
        max_samples: most images to embed.

    Raises:
        ValueError, OSError: it is neither an embedding nor a task, or the probe cannot be had by its name.
    """
    if found := embeddings_in(task):
        return load_embeddings(found)[0]
    return embed_like(as_task(task), library[library.names[0]].meta, max_samples)


def embed_like(source: Any, like: Mapping[str, Any], max_samples: int) -> Embedding:
    """The embedding of a dataset, made in the way of another embedding, whose `meta` is given."""
    length = TextTransform.length_in(like["transform"])
    probe = get_probe(like["probe"], input_size=like["input_size"], max_length=length)
    own = {name: like[name] for name in _OPTIONS if name in like}
    return embed(source, probe, max_samples=max_samples, **own)


def short_list(task: str, library: str, run: int, most: int) -> dict[str, Any]:
    """Keywords of `TaskLibrary.recommend` that have experts run on a task.

    Args:
        task: what `t2v_lightning.embed` takes for a task.
        library: folder of the library, or `builtin`.
        run: how many experts.
        most: images that they run on, at most.

    Raises:
        ValueError, OSError: it is no task with images and classes.
    """
    if embeddings_in(task):
        raise ValueError(
            f"{task} holds an embedding; networks are tried on the images themselves, so give these"
        )
    source = as_task(task)
    features = features_of(
        Images.of(source),
        most=most,
        input_size=INPUT_SIZE if library == BUILTIN else None,
        cannot_run=lambda name, reason: say(f"{name} cannot be run: {reason}"),
    )
    return {"method": "short_list", "features": features, "run": run}


def settings_like(library: TaskLibrary) -> list[str]:
    """The settings of a run whose embedding can be compared with those of a library."""
    like = library[library.names[0]].meta
    own = [f"task2vec.{name}={like[name]}" for name in _OPTIONS if name in like and name != "method"]
    if length := TextTransform.length_in(like["transform"]):
        probe = ["probe=minilm", f"probe.name={like['probe']}", f"probe.max_length={length}"]
    else:
        probe = [
            f"probe.name={like['probe']}",
            f"probe.input_size=[{','.join(map(str, like['input_size']))}]",
        ]
    return [f"task2vec={like['method']}", *probe, *own]
