"""Embeddings that `t2v compare` prints the distances of: those that are there, and those of tasks made on the spot."""

from collections.abc import Sequence

from t2v_lightning.cli.advising import embed_like
from t2v_lightning.cli.sources import embeddings_in, source_of
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.collection import load_embeddings
from t2v_lightning.task2vec.module import embed
from t2v_lightning.task2vec.sources import as_task

IMAGES, TEXTS = "efficientnet_lite0", "hf/all-MiniLM-L6-v2"
"""Probes of tasks where there is no embedding that says which."""


def embeddings_of(places: Sequence[str], probe: str | None, max_samples: int) -> list[Embedding]:
    """The embeddings in places, and those of the tasks among them, in this order.

    Args:
        places: folders of runs or sweeps, files of embeddings, and tasks as `t2v embed` takes them.
        probe: that tasks are embedded with; None takes that of the embeddings that are there, in their way.
        max_samples: most images of a task.

    Raises:
        ValueError, OSError: a place is none of these; it is found before any task is embedded.
    """
    saved = {place: embeddings_in(place) for place in places}
    tasks = {place: source_of(place) for place, files in saved.items() if not files}
    opened = {place: as_task(place) for place in tasks}
    found = (
        load_embeddings([file for files in saved.values() for file in files])
        if len(tasks) < len(saved)
        else []
    )
    first = found[0].meta if found and probe is None else None
    for place, source in opened.items():
        if first is not None:
            embedding = embed_like(source, first, max_samples)
        else:
            network = probe or (TEXTS if tasks[place].is_text else IMAGES)
            embedding = embed(source, network, max_samples=max_samples)
        found.append(embedding.with_meta(task_name=tasks[place].name))
    return found
