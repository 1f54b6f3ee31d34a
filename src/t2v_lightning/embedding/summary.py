"""A run and its embedding as a table in Markdown."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from t2v_lightning.embedding.comparable import in_words
from t2v_lightning.embedding.value import Embedding
from t2v_lightning.functional.likelihood import LIKELIHOODS, TOKEN_LIKELIHOODS, Likelihood, get_likelihood

_LONGEST_LIST = 160
"""Most characters of the list of class names."""

_SAMPLING = {
    "sign": "random signs",
    "categorical": "labels drawn from the probe",
    "exact": "every column",
    "empirical": "the task's labels",
}


def summarise(embedding: Embedding, seconds: Mapping[str, float] | None = None) -> str:
    """The main facts about an embedding that `Task2Vec` made, as a table in Markdown.

    Args:
        embedding: the result.
        seconds: seconds that each part of the work took.

    >>> embedding = Embedding([3.0, 4.0], [1, 1], meta={"task_name": "digits", "num_classes": 2, "samples": 50})
    >>> print(summarise(embedding, {"features": 3.21}))
    | digits |  |
    |---|---|
    | classes | 2 |
    | images | 50 |
    | norm | 5 |
    | entries | median 3.5, from 3 to 4 |
    | filters | 2 |
    | time | features 3.2 s |
    """
    meta = embedding.meta
    rows = {
        "dataset": _dataset(meta),
        "family": meta.get("family"),
        "classes": _classes(meta),
        items_of(meta): _items(meta),
        "likelihood": meta.get("likelihood"),
        "probe": meta.get("probe"),
        "input size": in_words(meta.get("input_size")),
        "transform": in_words(meta.get("transform"), digits=4),
        "precision": meta.get("precision"),
        "method": _method(meta),
        "head": _head(meta),
        "under noise": _under_noise(meta),
        "test": _test(meta),
        "fast_dev_run": _fast_dev_run(meta),
        "norm": f"{embedding.norm:.4g}",
        "entries": _entries(embedding),
        "relative standard error": _stderr(embedding),
        "filters": _filters(embedding),
        "time": ", ".join(f"{name} {_duration(value)}" for name, value in (seconds or {}).items()),
        "seed": meta.get("seed"),
        "versions": ", ".join(f"{name} {value}" for name, value in meta.get("versions", {}).items()),
    }
    shown = [[name, str(value)] for name, value in rows.items() if value not in (None, "")]
    return markdown_table([embedding.task_name or "task", ""], shown)


def measured(meta: Mapping[str, Any], part: Literal["head", "variational"]) -> float | None:
    """The accuracy, R^2 or whatever the likelihood measures a fit by, of the head or under noise; None if unknown.

    It follows from the losses where these are recorded, as the first version kept another number of a regression.

    >>> fit = {"accuracy": -79.0, "loss": 40.0, "constant_loss": 100.0}
    >>> measured({"likelihood": "gaussian", "head": fit}, "head")
    0.6
    """
    head, fit = (found if isinstance(found := meta.get(name), dict) else {} for name in ("head", part))
    accuracy, loss, guess = (
        fit.get("accuracy"),
        fit.get("cross_entropy", fit.get("loss")),
        head.get("constant_loss"),
    )
    if accuracy is None or not (isinstance(loss, float) and isinstance(guess, float)):
        return accuracy
    return likelihood_of(meta).measured(accuracy, loss, guess)


def tested(meta: Mapping[str, Any]) -> float | None:
    """The accuracy, mean average precision or R^2 on images that the fit has not seen; None where none were evaluated.

    >>> tested({"likelihood": "softmax", "test": {"images": 50, "accuracy": 0.9}})
    0.9
    """
    test = meta.get("test")
    return test.get(likelihood_of(meta).test_measure) if isinstance(test, dict) else None


def likelihood_of(meta: Mapping[str, Any]) -> Likelihood:
    """The likelihood that an embedding records; softmax where it records none that is known."""
    name = str(meta.get("likelihood"))
    return get_likelihood(name) if name in LIKELIHOODS | TOKEN_LIKELIHOODS else LIKELIHOODS["softmax"]


def items_of(meta: Mapping[str, Any]) -> str:
    """What the task is made of, in the plural.

    >>> items_of({"likelihood": "softmax", "texts_cut_off": 0}), items_of({"likelihood": "softmax"})
    ('texts', 'images')
    """
    return "texts" if "texts_cut_off" in meta or likelihood_of(meta).of_inputs else "images"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """A table in Markdown of any text, which is shown verbatim.

    Args:
        header: n names of columns.
        rows: of n texts each.
        align: a letter per column: `r` for numbers, else anything.

    >>> print(markdown_table(["task", "norm"], [["a|b", "1.5"]], "lr"))
    | task | norm |
    |---|---:|
    | a&#124;b | 1.5 |
    """
    marks = ["---:" if letter == "r" else "---" for letter in align.ljust(len(header))]
    lines = [[_escaped(text) for text in header], marks, *([_escaped(text) for text in row] for row in rows)]
    return "\n".join(
        f"|{'|'.join(cells)}|" if cells is marks else f"| {' | '.join(cells)} |" for cells in lines
    )


def _dataset(meta: Mapping[str, Any]) -> str:
    """The dataset, and which of its tasks this is where it has several."""
    name, number = meta.get("dataset", ""), meta.get("task_id")
    return f"{name}, task {number}" if number is not None and meta.get("task_name") != name else str(name)


def _classes(meta: Mapping[str, Any]) -> str:
    names = [str(name) for name in meta.get("class_names") or meta.get("classes") or []]
    text, count = "", meta.get("num_classes", len(names))
    for number, name in enumerate(names):
        if len(text) + len(name) > _LONGEST_LIST:
            text += f" and {len(names) - number} more"
            break
        text += f"{', ' * bool(text)}{name}"
    return f"{count}: {text}" if text else str(count)


def _items(meta: Mapping[str, Any]) -> str:
    balanced = ", every class counts the same" if meta.get("balanced") else ""
    cut_off = f", {meta['texts_cut_off']:,} of them cut off" if meta.get("texts_cut_off") else ""
    return f"{meta['samples']:,}{balanced}{cut_off}" if "samples" in meta else ""


def _method(meta: Mapping[str, Any]) -> str:
    """The method with its own settings."""
    if noise := meta.get("variational"):
        return f"{meta['method']}, {noise['epochs']} epochs of {noise['num_samples']:,} draws, beta {noise['beta']:g}"
    if "passes" not in meta:
        return str(meta.get("method", ""))
    passes = f"{meta['passes']} pass{'es' * (meta['passes'] != 1)} per {items_of(meta)[:-1]}"
    target = meta.get("target_stderr")
    stop = f", until the standard error is {target:.1%}" if target else ""
    sampling = meta.get("sampling", "")
    squares = f", squares {meta['squares']}" if "squares" in meta else ""
    return f"{meta['method']}, {passes} with {_SAMPLING.get(sampling, sampling)} ({sampling}){squares}{stop}"


def _head(meta: Mapping[str, Any]) -> str:
    head = meta.get("head")
    if not head:
        return ""
    return (
        f"{head['method']}: {_measured(meta, 'head')} on these {items_of(meta)}, loss {head['loss']:.4g}, "
        f"where a constant guess has {head['constant_loss']:.4g}"
    )


def _under_noise(meta: Mapping[str, Any]) -> str:
    noise = meta.get("variational")
    if not noise:
        return ""
    return (
        f"{_measured(meta, 'variational')}, cross-entropy {noise['cross_entropy']:.4g}, where a constant guess has "
        f"{meta['head']['constant_loss']:.4g}; with beta times KL {noise['beta'] * noise['kl']:.4g} the loss is "
        f"{noise['loss']:.4g}"
    )


def _test(meta: Mapping[str, Any]) -> str:
    test, kind, number = meta.get("test"), likelihood_of(meta), tested(meta)
    if not test or number is None:
        return ""
    return (
        f"{test['images']:,} other {items_of(meta)}: {kind.test_short} {kind.accuracy_text(number)}, "
        f"loss {test['loss']:.4g}"
    )


def _fast_dev_run(meta: Mapping[str, Any]) -> str:
    batches = meta.get("fast_dev_run")
    if not batches:
        return ""
    return f"{batches} batch{'es' * (batches > 1)} of each phase, so not an embedding of the task"


def _measured(meta: Mapping[str, Any], part: Literal["head", "variational"]) -> str:
    number = measured(meta, part)
    return "" if number is None else likelihood_of(meta).describe_accuracy(number)


def _entries(embedding: Embedding) -> str:
    """Median and range, as a few large entries dominate the norm."""
    low, middle, high = np.quantile(embedding.fisher, [0, 0.5, 1])
    return f"median {middle:.4g}, from {low:.4g} to {high:.4g}"


def _stderr(embedding: Embedding) -> str:
    if embedding.relative_stderr is not None:
        return f"{embedding.relative_stderr:.1%}"
    return "not known for this method" if embedding.meta.get("method") == "variational" else ""


def _filters(embedding: Embedding) -> str:
    meta, layers = embedding.meta, len(embedding.layers)
    where = f" in {layers} layers" if layers else ""
    kinds = f", {meta['include']}" if "include" in meta else ""
    skipped = f", from stage {meta['skip_layers']} on" if meta.get("skip_layers") else ""
    return f"{len(embedding):,}{where}{kinds}{skipped}"


def _duration(seconds: float) -> str:
    """A duration as a person would write it.

    >>> _duration(3.21), _duration(200)
    ('3.2 s', '3 min 20 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _escaped(text: str) -> str:
    """Text on one line, escaped for Markdown and HTML."""
    line = html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;")
    return re.sub(r"([\\`*_{}\[\]])", r"\\\1", line)
