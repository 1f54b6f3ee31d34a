"""How diverse datasets are: the mean distance between batches, its error and noise, bounds and plain baselines."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """What `python -m t2v_lightning.diversity` does; exits with 1 and one line of text where it cannot."""
    try:
        _run(_parser().parse_args(arguments))
    except (OSError, ValueError, TypeError, LookupError, ImportError, RuntimeError) as error:
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m t2v_lightning.diversity", description=__doc__)
    parser.add_argument("datasets", nargs="+", metavar="DATASET",
                        help="names of datamodules, or folders and tables: of labelled images, or, for a language "
                        "model, of texts, with labels or without (.txt files by paragraph)")  # fmt: skip
    parser.add_argument("--probe", required=True, help="hf/<model> for texts, or one of `t2v list probes`")
    parser.add_argument("--batches", type=int, default=20, help="of each dataset, 20 by default")
    parser.add_argument("--batch-size", type=int, default=512, help="items of a batch, 512 by default; it drives "
                        "the coefficient")  # fmt: skip
    parser.add_argument(
        "--length", type=int, help="most tokens of a text; by default as many as the model takes"
    )
    parser.add_argument("--input-size", type=int, help="side of images in pixels")
    parser.add_argument("--head", choices=("pretrained", "bias", "full"),
                        help="what is fitted to each batch: by default nothing for a language model (pretrained), "
                        "a new head for images (full)")  # fmt: skip
    parser.add_argument("--skip-layers", type=int, default=0, help="stage at which the vector starts")
    parser.add_argument(
        "--token-table", action="store_true", help="count the token table tied to the output layer"
    )
    parser.add_argument("--text-column", default="text", help="of a table")
    parser.add_argument("--bounds", type=int, default=3, help="batches of each bound; 0 for none")
    parser.add_argument("--distance", default="cosine", choices=("cosine", "cosine_unit"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=Path("diversity"),
                        help="folder of <dataset>.json and diversity.png; `diversity` by default")  # fmt: skip
    return parser


def _run(options: argparse.Namespace) -> None:
    # here, as torch takes seconds to import, and help needs none of it
    from t2v_lightning.diversity.embedded import EmbeddedBatches, embed_batches, embed_bounds
    from t2v_lightning.diversity.figure import draw
    from t2v_lightning.diversity.result import CrossDiversity, DatasetDiversity
    from t2v_lightning.diversity.sources import texts_or_task
    from t2v_lightning.probes.text_transform import TextTransform

    probe = _probe(options)
    of_texts = isinstance(probe.transform, TextTransform)
    sources = [texts_or_task(place, of_texts, options.text_column) for place in options.datasets]
    names = _names(options.datasets)
    shared: dict[str, Any] = {
        "head": options.head,
        "skip_layers": options.skip_layers,
        "device": options.device,
    }
    if options.token_table:
        shared["token_table"] = True
    embedded: list[EmbeddedBatches] = []
    results: list[DatasetDiversity] = []
    for number, (source, name) in enumerate(zip(sources, names, strict=True)):
        seed = options.seed + number  # so that datasets have random vectors of their own
        found = embed_batches(
            source,
            probe,
            batches=options.batches,
            batch_size=options.batch_size,
            name=name,
            seed=seed,
            **shared,
        )
        result = DatasetDiversity.of(found, options.distance)
        if options.bounds:
            result = result.between(*embed_bounds(found, probe, options.bounds, seed=seed, **shared))
        result.save(options.output / f"{name}.json")
        print(result, flush=True)
        embedded.append(found)
        results.append(result)
    for a, b in combinations(embedded, 2):
        print(CrossDiversity.of(a, b, options.distance))
    figure = options.output / "diversity.png"
    draw(results).savefig(figure, dpi=150)
    print(f"wrote {figure}")


def _probe(options: argparse.Namespace) -> Any:
    from t2v_lightning.diversity.embedded import network_of
    from t2v_lightning.probes import get_probe

    if options.probe.startswith("hf/"):
        return get_probe(options.probe, pooling="none", max_length=options.length)
    if options.length is not None:
        raise ValueError("--length is for texts; this probe takes images")
    return network_of(get_probe(options.probe, input_size=options.input_size))


def _names(places: Sequence[str]) -> list[str]:
    """Names of files for datasets, each another."""
    found: list[str] = []
    for place in places:
        path = Path(place)
        name = re.sub(r"[^\w.-]+", "_", path.stem if path.is_file() else path.name) or "dataset"
        found.append(f"{name}-{len(found)}" if name in found else name)
    return found


if __name__ == "__main__":
    main()
