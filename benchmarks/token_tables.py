"""Whether an encoder's embedding tells kinds of tasks apart better with the rows of its token table or without them.

    cd benchmarks
    python token_tables.py --texts TEXTS --cache CACHE    # `diversity.texts` says how to get TEXTS

all-MiniLM-L6-v2 has 30,522 rows of its table of tokens among 52,156 filters. Two sets of tasks of 48 texts each,
which are cut off at 64 tokens:

- built-in: the eight tasks of `experiment=text_tour`, of three kinds: which module a docstring is from, which module a
  piece of code is from, and which of the two a text is. Tasks of one kind have different modules.
- domains: which of two domains a passage is from, for nine pairs of nine domains, no text in two tasks. Two are of
  one kind if they share a domain, as each does with two others.

A triple is a task, one of its kind and one of another; it is told right if the one of its kind is nearer. The standard
error is a jackknife over tasks. What is embedded is kept in CACHE.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from diversity.texts import domains
from numpy.typing import NDArray

from t2v_lightning import Embedding, embed, get_probe
from t2v_lightning.data import get_datamodule
from t2v_lightning.functional.distances import pdist

SAMPLES, LENGTH = 48, 64
TABLE = "word_embeddings"
BUILT_IN = {
    "docstrings": ("docstrings", "docstrings_numerics", "docstrings_learning"),
    "code": ("code", "code_numerics", "code_learning"),
    "both": ("code_or_docstring", "code_or_docstring_numerics"),
}


def built_in() -> dict[str, tuple[set[str], object]]:
    """Tasks by name, each with its kinds."""
    return {name: ({kind}, get_datamodule(name)) for kind, names in BUILT_IN.items() for name in names}


def of_domains(texts: Path) -> dict[str, tuple[set[str], object]]:
    """Each domain is in two tasks, and each task has passages of its own."""
    found = {name: iter(passages) for name, passages in domains(texts).items()}
    names, half = list(found), SAMPLES // 2
    tasks: dict[str, tuple[set[str], object]] = {}
    for a, b in zip(names, [*names[1:], names[0]], strict=True):
        items = [
            (text, label) for label, name in enumerate((a, b)) for text in itertools.islice(found[name], half)
        ]
        tasks[f"{a} or {b}"] = {a, b}, items
    return tasks


def without_table(embedding: Embedding) -> Embedding:
    kept = np.ones(len(embedding), bool)
    for layer, entries in embedding.layers.items():
        if TABLE in layer:
            kept[entries] = False
    return Embedding(embedding.fisher[kept], embedding.scale[kept])


def told_right(matrix: NDArray[np.float64], kinds: list[set[str]], tasks: list[int]) -> float:
    """The share of the triples of some tasks that is told right."""
    right = [
        matrix[a, b] < matrix[a, c]
        for a, b, c in itertools.permutations(tasks, 3)
        if kinds[a] & kinds[b] and not kinds[a] & kinds[c]
    ]
    return float(np.mean(right))


def shares(matrices: list[NDArray[np.float64]], kinds: list[set[str]]) -> list[str]:
    """Shares by each of two matrices, and the second less the first."""
    everyone, n = list(range(len(kinds))), len(kinds)

    def both(tasks: list[int]) -> NDArray[np.float64]:
        first, second = (told_right(matrix, kinds, tasks) for matrix in matrices)
        return np.array([first, second, second - first])

    without = [both([task for task in everyone if task != left_out]) for left_out in everyone]
    errors = np.sqrt((n - 1) * np.var(without, axis=0))
    return [f"{value:.3f} ± {error:.3f}" for value, error in zip(both(everyone), errors, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python token_tables.py", description=__doc__)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    probe = get_probe("hf/all-MiniLM-L6-v2", max_length=LENGTH)
    print("| tasks | distance | with the table | without | difference |\n|---|---|---|---|---|")
    for title, tasks in (("built-in", built_in()), ("domains", of_domains(options.texts))):
        embeddings = []
        for name, (_, task) in tasks.items():
            file = options.cache / f"{name}.safetensors"
            if not file.exists():
                embed(task, probe, max_samples=SAMPLES, device="cpu", progress=False, batch_size=16).save(
                    file
                )
            embeddings.append(Embedding.load(file))
        kinds = [kind for kind, _ in tasks.values()]
        for distance in ("cosine", "cosine_unit"):
            groups = embeddings, [without_table(embedding) for embedding in embeddings]
            found = shares([pdist(group, distance) for group in groups], kinds)
            print(f"| {title} | {distance} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
