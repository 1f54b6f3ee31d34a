"""`t2v`: plain commands over the same settings as `train.py`, which each of them says."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from t2v_lightning._version import __version__
from t2v_lightning.cli.sources import Source, source_of

app = typer.Typer(
    name="t2v",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Task embeddings: what a labelled dataset is like, how hard it is, and which network will serve it.",
    epilog="Every setting there is: python -m t2v_lightning --help",
)

Places = Annotated[list[Path], typer.Argument(help="Folders of runs or sweeps, or files of embeddings.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of `t2v` itself."""


@app.command()
def embed(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders with a folder of images for each class, tables of images and labels (CSV, TSV, Parquet), "
            "folders written by save_to_disk of Hugging Face datasets, or names of `t2v list datasets`.",
            metavar="TASK...",
        ),
    ],
    probe: Annotated[str | None, typer.Option(help="The network, one of `t2v list probes`.")] = None,
    input_size: Annotated[int | None, typer.Option(help="Side of its images in pixels.")] = None,
    max_samples: Annotated[int | None, typer.Option(help="At most this many images.")] = None,
    method: Annotated[str | None, typer.Option(help="montecarlo or variational.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results, one below it for each task; by default outputs."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, such as task2vec.passes=4.")
    ] = None,
) -> None:
    """Embed tasks, one after another."""
    named = {
        "task2vec": method,
        "probe.name": probe,
        "probe.input_size": input_size,
        "task2vec.max_samples": max_samples,
    }
    shared = [f"{name}={value}" for name, value in named.items() if value is not None]
    found = [_or_exit(source_of, text) for text in sources]
    status = 0
    for source in found:
        folder = [] if out is None else [f"hydra.run.dir={Source.quoted(str(out / source.name))}"]
        status = _run([*source.settings, *shared, *(settings or []), *folder]) or status
    raise typer.Exit(status)


@app.command()
def compare(
    places: Places,
    distance: Annotated[str, typer.Option(help="One of `t2v list distances`.")] = "cosine_unit",
) -> None:
    """Print how far apart embeddings are."""
    from t2v_lightning.embedding.collection import find_embeddings, load_embeddings
    from t2v_lightning.functional.distances import pdist
    from t2v_lightning.report.tables import print_table

    def table() -> None:
        embeddings = load_embeddings(find_embeddings(places))
        print_table(embeddings, pdist(embeddings, distance), Console())

    _or_exit(table)


@app.command()
def recommend(
    task: Annotated[
        str,
        typer.Argument(
            help="The folder of a run, the file of an embedding, or a task as `t2v embed` takes it."
        ),
    ],
    library: Annotated[str, typer.Option(help="Folder of a library, or builtin.")] = "builtin",
    k: Annotated[int, typer.Option("-k", min=1, help="How many networks.")] = 3,
    max_samples: Annotated[int, typer.Option(help="Embed at most this many images.")] = 1000,
    run: Annotated[
        int | None,
        typer.Option("--try", min=2, help="Run this many networks, those that promise most, on the task."),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Whose results count, where the library has several.")
    ] = None,
) -> None:
    """Say which pretrained networks promise the least error on a task."""
    from t2v_lightning.cli.advising import embedding_for, short_list
    from t2v_lightning.library import Protocol
    from t2v_lightning.library.asking import one_protocol
    from t2v_lightning.library.builtin import open_library
    from t2v_lightning.library.tables import print_recommendation

    def advice() -> None:
        known = open_library(library)
        how = one_protocol(known.protocols, None if protocol is None else Protocol.parse(protocol))
        own = {} if run is None else short_list(task, library, run, max_samples)
        embedding = embedding_for(task, known, max_samples)
        print_recommendation(known.recommend(embedding, k=k, protocol=how, **own), Console())

    _or_exit(advice)


@app.command()
def report(
    places: Places,
    distance: Annotated[str, typer.Option(help="One of `t2v list distances`.")] = "cosine_unit",
    output: Annotated[Path | None, typer.Option(help="Folder of the page; by default the first one.")] = None,
) -> None:
    """Write the page, the figures and the tables on many embeddings."""
    from t2v_lightning.report.__main__ import main

    given = ["--distance", distance, *([] if output is None else ["--output", str(output)])]
    main([*map(str, places), *given])


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="A benchmark; `t2v list downloads` names them.")],
    root: Annotated[Path, typer.Option(help="Folder of all data.", envvar="DATA_ROOT")],
    remove_archives: Annotated[bool, typer.Option(help="Delete each archive once it is unpacked.")] = False,
) -> None:
    """Fetch a benchmark to where its datamodule reads it."""
    from t2v_lightning.data.download.__main__ import main

    raise typer.Exit(main([name, "--root", str(root), *(["--remove-archives"] if remove_archives else [])]))


@app.command("list")
def list_names(
    what: Annotated[str, typer.Argument(help="datasets, downloads, probes or distances.")],
) -> None:
    """List names that other commands take, one a line."""
    names = _names().get(what)
    if names is None:
        _fail(f"got {what!r}; allowed are {', '.join(_names())}")
    else:
        print("\n".join(names))


def _names() -> dict[str, list[str]]:
    from t2v_lightning.data import list_datamodules
    from t2v_lightning.data.download.catalogue import CATALOGUE
    from t2v_lightning.functional.distances import DISTANCES
    from t2v_lightning.probes import list_probes

    return {
        "datasets": list_datamodules(),
        "downloads": [*CATALOGUE],
        "probes": list_probes(),
        "distances": [*DISTANCES],
    }


def _run(settings: list[str]) -> int:
    """Runs the full command line, which is said first."""
    print(f"$ {shlex.join(['python', '-m', 't2v_lightning', *settings])}", flush=True)
    return subprocess.run([sys.executable, "-m", "t2v_lightning", *settings], check=False).returncode


def _or_exit(work: Any, *arguments: Any) -> Any:
    """What the work gives; where it cannot, one line of text and the status 1."""
    try:
        return work(*arguments)
    except (OSError, ValueError, KeyError) as error:
        _fail(str(error.args[0]) if isinstance(error, KeyError) else str(error))


def _fail(reason: str) -> None:
    print(f"error: {reason}", file=sys.stderr)
    raise typer.Exit(1)


def main() -> None:
    """What `t2v` does."""
    app()
