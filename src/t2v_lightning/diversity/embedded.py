"""Batches of a dataset and their embeddings, from which coefficients are computed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from typing import Any, Literal, get_args

import torch
from pytorch_lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader

from t2v_lightning.diversity.baselines import N_GRAMS, distinct_n_grams
from t2v_lightning.diversity.batches import Batches
from t2v_lightning.diversity.items import Pairs, as_pairs, at_random, longest, repeated, tokens_of
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.comparable import in_words
from t2v_lightning.functional.likelihood import LikelihoodName, get_likelihood
from t2v_lightning.loading.users import dataset_of, one_loader, open_source
from t2v_lightning.phases import HeadOptions
from t2v_lightning.phases.options import HeadMethod
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.probes.text_transform import TextTransform
from t2v_lightning.task2vec.many import embed_many
from t2v_lightning.task2vec.options import choose_likelihood, default_head
from t2v_lightning.task2vec.sources import as_probe, as_task

log = logging.getLogger(__name__)

HeadName = Literal["pretrained", "bias", "full"]

HEADS: dict[HeadName, HeadMethod] = {"pretrained": "keep", "bias": "bias", "full": "adam"}
"""What is fitted to each batch, and the method of `HeadOptions` that does it."""

_SEEDS = 2**20
"""Random vectors of different seeds are independent; each batch of a dataset has a seed of its own."""


@dataclass(frozen=True)
class EmbeddedBatches:
    """Embeddings of batches of one dataset.

    Attributes:
        name: of the dataset.
        embeddings: one for each batch.
        settings: what must agree between coefficients that are compared.
        disjoint: whether no two batches share an item.
        n_grams: distinct-n of each batch for n of 1 to 4; empty for items that are not sequences of tokens.
        first: the items of the first batch.
        cut_off: number of texts that are longer than the probe takes, which sees their beginnings.
    """

    name: str
    embeddings: tuple[Embedding, ...]
    settings: dict[str, Any]
    disjoint: bool
    n_grams: tuple[tuple[float, ...], ...] = ()
    first: Pairs = field(default=None, repr=False, compare=False)
    cut_off: int = 0

    def __len__(self) -> int:
        return len(self.embeddings)


def embed_batches(
    dataset: Any,
    probe: ProbeNetwork | nn.Module | str,
    *,
    batches: int = 20,
    batch_size: int = 512,
    head: HeadName | HeadOptions | None = None,
    likelihood: LikelihoodName | None = None,
    name: str | None = None,
    seed: int = 0,
    at_once: int = 16,
    device: str | torch.device = "auto",
    progress: bool = True,
    **options: Any,
) -> EmbeddedBatches:
    """Draws batches of a dataset and embeds each, the work of `diversity_coefficient`; arguments as there."""
    network = network_of(probe)
    source = as_task(dataset)
    likelihood = choose_likelihood(likelihood, source, network)
    shared = _options(likelihood, head, options)
    drawn = Batches(_items(source), batches, batch_size, seed)
    if not drawn.disjoint:
        log.warning(
            "the dataset has %d items, fewer than %d batches of %d: batches share items, and the standard error is too "
            "small",
            len(drawn.dataset),
            batches,
            batch_size,
        )
    seen = _Seen(drawn, network, get_likelihood(likelihood).of_inputs)
    found = embed_many(
        seen, network, seed=count(_SEEDS * seed), batch_size=at_once, device=device, progress=progress, **shared
    )  # fmt: skip
    embeddings = tuple(found)
    title = name or getattr(source, "task_name", "") or type(source).__name__
    return EmbeddedBatches(
        title,
        embeddings,
        _settings(embeddings[0], network, batch_size, seen.longest),
        drawn.disjoint,
        tuple(seen.n_grams),
        seen.first,
        seen.cut_off,
    )


def embed_bounds(
    found: EmbeddedBatches,
    probe: ProbeNetwork | nn.Module | str,
    batches: int,
    *,
    head: HeadName | HeadOptions | None = None,
    likelihood: LikelihoodName | None = None,
    seed: int = 0,
    at_once: int = 16,
    device: str | torch.device = "auto",
    progress: bool = True,
    **options: Any,
) -> tuple[EmbeddedBatches, EmbeddedBatches]:
    """Batches of the least and of the most diversity, of the sizes and with the labels of the first batch of a dataset.

    The least is one item again and again, in all batches, so that they differ by their random vectors alone; the most
    is token ids drawn uniformly, or images of normal noise.
    """
    network = network_of(probe)
    shared = _options(likelihood or found.settings["likelihood"], head, options)

    def embedded(name: str, tasks: Iterable[Pairs], first: int) -> EmbeddedBatches:
        many = embed_many(
            tasks, network, seed=count(first), batch_size=at_once, device=device, progress=progress, **shared
        )
        return replace(found, name=name, embeddings=tuple(many), disjoint=True, n_grams=())

    start = _SEEDS * seed + _SEEDS // 2
    lower = (repeated(found.first, network) for _ in range(batches))
    upper = (at_random(found.first, network, start + number) for number in range(batches))
    return embedded("one item repeated", lower, start), embedded("random", upper, start + _SEEDS // 4)


class _Seen:
    """Batches as tasks, one at a time, and what is noted of each on the way."""

    def __init__(self, batches: Batches, probe: ProbeNetwork, unlabelled: bool) -> None:
        self.batches, self.probe, self.unlabelled = batches, probe, unlabelled
        self.first: Pairs = None
        self.n_grams: list[tuple[float, ...]] = []
        self.longest = self.cut_off = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Pairs]:
        for number, batch in enumerate(self.batches):
            pairs, cut_off = as_pairs(batch, self.probe, self.unlabelled, number)
            self.cut_off += cut_off
            self.first = pairs if number == 0 else self.first
            sequences = tokens_of(pairs)
            if sequences is not None:
                self.n_grams.append(tuple(distinct_n_grams(sequences, n) for n in N_GRAMS))
                self.longest = max(self.longest, longest(sequences))
            yield pairs


def network_of(probe: ProbeNetwork | nn.Module | str) -> ProbeNetwork:
    """The probe; a name of a language model stands for the model with its own output layer."""
    if isinstance(probe, str) and probe.startswith("hf/"):
        from t2v_lightning.probes import get_probe

        return get_probe(probe, pooling="none")
    found = as_probe(probe)
    return found if isinstance(found, ProbeNetwork) else ProbeNetwork.from_module(found)


def _options(
    likelihood: LikelihoodName, head: HeadName | HeadOptions | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Options of `embed_many`; the head is the model's own under the likelihood of a language model, else a new one."""
    if options.get("method", "montecarlo") != "montecarlo":
        raise ValueError(f"a diversity coefficient takes method='montecarlo', got {options['method']!r}")
    if head is None:
        head = HeadOptions(default_head(likelihood))
    elif isinstance(head, str):
        if head not in HEADS:
            raise ValueError(
                f"unknown head {head!r}; allowed are {', '.join(map(repr, get_args(HeadName)))} and HeadOptions(...)"
            )
        head = HeadOptions(HEADS[head])
    return {"likelihood": likelihood, "head": head, "max_samples": None, **options}


def _items(source: Any) -> Any:
    """The items of a dataset, a stream, a loader or a datamodule."""
    if isinstance(source, (LightningDataModule, DataLoader)):
        source, _ = open_source(source, None, None)
    if isinstance(source, LightningDataModule):
        source = dataset_of(one_loader(source.train_dataloader()))
    return source


def _settings(embedding: Embedding, probe: ProbeNetwork, batch_size: int, tokens: int) -> dict[str, Any]:
    """What a coefficient depends on besides the dataset, in plain values by their names in messages."""
    meta, known = embedding.meta, embedding.comparable_by
    head = HeadOptions(**{name: meta["head"][name] for name in asdict(HeadOptions())})
    layout = hashlib.sha256(repr(known.pop("layout", None)).encode()).hexdigest()[:8]
    text = isinstance(probe.transform, TextTransform)
    known.pop("method", None)
    return {
        "batch_size": batch_size,
        "probe": probe.name,
        "head": head.method if head.method == "keep" else in_words(asdict(head)),
        "length": probe.transform.max_length if text else tokens or None,  # type: ignore[union-attr]
        "likelihood": meta["likelihood"],
        "sampling": f"{meta['sampling']}, passes {meta['passes']}",
        "token table": meta.get("token_table", False),
        "filters": f"{len(embedding)}, {layout}",
        **known,
    }
