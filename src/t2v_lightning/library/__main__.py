"""A library of tasks and experts on the command line: `python -m t2v_lightning.library build|add|nearest|...`."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from t2v_lightning.data import get_datamodule
from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.collection import find_embeddings, load_embeddings
from t2v_lightning.embedding.run_folder import ADVICE_FILE
from t2v_lightning.library.advice_file import write_advice
from t2v_lightning.library.builtin import open_library
from t2v_lightning.library.experts import expert_of
from t2v_lightning.library.files import LIBRARY_FILE
from t2v_lightning.library.measure import Images, measure
from t2v_lightning.library.protocol import Protocol
from t2v_lightning.library.tables import describe, print_neighbours, print_recommendation, print_results
from t2v_lightning.library.task_library import TaskLibrary
from t2v_lightning.library.trying import features_of


def main(arguments: Sequence[str] | None = None) -> None:
    """What `python -m t2v_lightning.library` does; exits with 1 and one line of text where it cannot."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options, Console())
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {' '.join(str(text).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(
            "interrupted: what was finished is saved, and the same command goes on from there",
            file=sys.stderr,
        )
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m t2v_lightning.library", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        one.add_argument(
            "--library", type=Path, required=True, metavar="FOLDER", help="folder of the library, or builtin"
        )
        one.set_defaults(run=run)
        return one

    for name, run, about in (
        ("build", _build, "Make a library of embeddings, and of results in a table."),
        ("add", _add, "Add embeddings, and results in a table, to a library."),
    ):
        one = command(name, run, about)
        one.add_argument(
            "places", nargs="*", type=Path, metavar="PLACE", help="files or folders of embeddings"
        )
        one.add_argument("--family", help="of these tasks; by default what their embeddings say")
        one.add_argument("--results", type=Path, metavar="CSV",
                         help="columns task, expert, error (percent), and perhaps stderr, failure and protocol, "
                         "such as 'probe, 10 images a class, seed 0'")  # fmt: skip
    one = command("nearest", _nearest, "The tasks of a library that are nearest to one.")
    one.add_argument("place", type=Path, metavar="PLACE", help="file or folder of an embedding")
    one.add_argument("-k", type=int, default=5, help="how many; 5 by default")
    one = command("recommend", _recommend, "The experts that promise the least error on a task.")
    one.add_argument("place", type=Path, metavar="PLACE", help="file or folder of an embedding")
    one.add_argument("-k", type=int, default=3, help="how many; 3 by default")
    one.add_argument("--method", default="library",
                     help="library (the default), kernel_average, static, nearest, asymmetric or "
                     "expert_embedding")  # fmt: skip
    one.add_argument("--experts", nargs="+", metavar="NAME", help="the candidates; by default all")
    one.add_argument("--protocol", help="whose results count, where the library has several")
    one.add_argument("--output", type=Path, metavar="JSON",
                     help=f"by default {ADVICE_FILE} beside the embedding")  # fmt: skip
    one.add_argument("--try", dest="tries", type=int, metavar="N",
                     help="run N experts, whose best promises most, on the task that --dataset names")  # fmt: skip
    one.add_argument("--networks", nargs="+", default=[], metavar="NAME=NETWORK:FILE",
                     help="experts that are weights of your own; others are made by their names")  # fmt: skip
    _image_options(one, required=False)
    one = command(
        "measure", _measure, "Fill empty cells: the error of experts on a task, by a head on their features."
    )
    one.add_argument("--experts", nargs="+", required=True, metavar="EXPERT",
                     help="networks by name, or name=network:file for weights of your own")  # fmt: skip
    one.add_argument("--images", type=int, help="of each class to fit to; by default all")
    one.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED", help="of the draws of --images; 0 by default"
    )
    _image_options(one, required=True)
    return parser


def _image_options(command: argparse.ArgumentParser, required: bool) -> None:
    """Those that say which images experts run on, and how."""
    command.add_argument(
        "--dataset", required=required, metavar="NAME", help="of the task's images, as in train.py"
    )
    command.add_argument("--root", help="folder of the dataset")
    command.add_argument("--task-id", type=int, help="number of the task in the dataset")
    command.add_argument(
        "--input-size", type=int, help="side of the images in pixels; by default that of the weights"
    )
    command.add_argument("--batch-size", type=int, default=64)
    command.add_argument("--num-workers", type=int, default=0, help="processes that read images")
    command.add_argument("--device", default="cpu")


def _images(options: argparse.Namespace) -> Images:
    datamodule = get_datamodule(
        options.dataset, root=options.root, task_id=options.task_id, batch_size=options.batch_size
    )
    return Images.of(datamodule, options.num_workers)


def _build(options: argparse.Namespace, console: Console) -> None:
    if (options.library / LIBRARY_FILE).exists():
        raise ValueError(f"{options.library} holds a library already; `add` adds to it")
    if not options.places:
        raise ValueError("build needs embeddings; give files or folders of them")
    _fill(TaskLibrary(), options, console)


def _add(options: argparse.Namespace, console: Console) -> None:
    if not (options.places or options.results):
        raise ValueError("there is nothing to add; give embeddings, or --results")
    _fill(open_library(options.library, to_write=True), options, console)


def _fill(library: TaskLibrary, options: argparse.Namespace, console: Console) -> None:
    for embedding in load_embeddings(find_embeddings(options.places)):
        library.add(embedding, family=options.family)
    if options.results:
        _add_results(library, options.results)
    library.save(options.library)
    _say(console, f"{options.library}: {describe(library)}")


def _nearest(options: argparse.Namespace, console: Console) -> None:
    library, embedding = open_library(options.library), _embedding(options.place)
    print_neighbours(library.nearest(embedding, options.k), console)


def _recommend(options: argparse.Namespace, console: Console) -> None:
    if (options.tries is None) != (options.dataset is None):
        raise ValueError("--try N runs experts on the images of --dataset; give both, or neither")
    if options.tries is not None and options.method != "library":
        raise ValueError(
            f"--try takes its list by the method library, and not by {options.method}; give one of them"
        )
    library, embedding = open_library(options.library), _embedding(options.place)
    asked: dict[str, Any] = {"method": options.method}
    if options.tries is not None:
        features = features_of(
            _images(options),
            dict(expert_of(text, options.input_size) for text in options.networks),
            input_size=options.input_size,
            device=options.device,
            cannot_run=lambda name, reason: _say(console, f"{name} cannot be run: {reason}"),
        )
        asked = {"method": "short_list", "features": features, "run": options.tries}
    found = library.recommend(
        embedding,
        k=options.k,
        experts=options.experts,
        protocol=options.protocol and Protocol.parse(options.protocol),
        **asked,
    )
    folder = options.place if options.place.is_dir() else options.place.parent
    write_advice(found, options.output or folder / ADVICE_FILE)
    print_recommendation(found, console)
    _say(console, f"written to {options.output or folder / ADVICE_FILE}")


def _measure(options: argparse.Namespace, console: Console) -> None:
    if options.seeds and options.images is None:
        raise ValueError("--seeds are of the draws of --images, which is not set; add it")
    library = open_library(options.library, to_write=True)
    experts = dict(expert_of(text, options.input_size) for text in options.experts)
    if len(experts) < len(options.experts):
        raise ValueError(f"two experts have the same name: {', '.join(options.experts)}")
    images = _images(options)
    seeds = [None] if options.images is None else options.seeds or [0]
    protocols = [Protocol("probe", options.images, seed) for seed in seeds]
    results = []
    for result in measure(library, images, experts, protocols, device=options.device):
        results.append(result)
        if result.failure:
            _say(console, f"{result.expert} failed: {result.failure}")
    if results:
        print_results(results, console)
    _say(
        console, f"{len(results)} results are new, {len(experts) * len(protocols) - len(results)} were there"
    )


def _embedding(place: Path) -> Embedding:
    """The only embedding in a place."""
    paths = find_embeddings([place])
    if len(paths) > 1:
        raise ValueError(f"{place} holds {len(paths)} embeddings; give one of them, such as {paths[0]}")
    return load_embeddings(paths)[0]


def _add_results(library: TaskLibrary, path: Path) -> None:
    """Results of a table with a header."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        known, needed = (
            {"task", "expert", "error", "stderr", "failure", "protocol"},
            {"task", "expert", "error"},
        )
        columns = set(rows.fieldnames or ())
        if not needed <= columns <= known:
            raise ValueError(
                f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'none'}; needed are task, expert and "
                "error, and allowed are stderr, failure and protocol"
            )
        for row in rows:
            try:
                library.add_result(
                    row["task"],
                    row["expert"],
                    float(row["error"] or "nan"),
                    float(row.get("stderr") or "nan"),
                    Protocol.parse(row.get("protocol") or "probe"),
                    row.get("failure") or "",
                )
            except (KeyError, ValueError, TypeError) as error:
                text = error.args[0] if error.args else error
                raise ValueError(f"{path}, line {rows.line_num}: {text}") from None


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
