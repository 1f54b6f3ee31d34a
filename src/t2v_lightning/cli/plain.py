"""`t2v`: plain commands over the same settings as `train.py`, which each of them says."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from t2v_lightning._spelling import did_you_mean
from t2v_lightning._version import __version__
from t2v_lightning.cli.completion import complete_distance, complete_list, complete_probe, complete_task
from t2v_lightning.cli.lists import DISTANCES, LISTS, print_list
from t2v_lightning.cli.sources import Source, check_places, embeddings_in, source_of
from t2v_lightning.cli.start import print_loading

app = typer.Typer(
    name="t2v",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Task embeddings: what a labelled dataset is like, how hard it is, and which network will serve it.",
    epilog="Every setting there is: python -m t2v_lightning --help",
)

Places = Annotated[
    list[Path], typer.Argument(help="Folders of runs or sweeps, or files of embeddings.", metavar="PLACE")
]
Distance = Annotated[
    str, typer.Option(help="One of `t2v list distances`.", autocompletion=complete_distance, metavar="NAME")
]


_STOPPED = 128
"""The status of a run that a signal has ended is this and the number of the signal."""


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
            help="Each a folder with a folder of images (or .txt files) for each class, a table of images or texts "
            "and their labels (CSV, TSV, Parquet, JSON Lines), a folder written by save_to_disk of Hugging Face "
            "datasets, or a name of `t2v list datasets`.",
            metavar="TASK",
            autocompletion=complete_task,
        ),
    ],
    probe: Annotated[
        str | None,
        typer.Option(
            help="The network, one of `t2v list probes`; by default efficientnet_lite0, and minilm for texts.",
            autocompletion=complete_probe,
            metavar="NAME",
        ),
    ] = None,
    input_size: Annotated[int | None, typer.Option(help="Side of images in pixels; texts have none.")] = None,
    max_samples: Annotated[int | None, typer.Option(help="At most this many images or texts.")] = None,
    method: Annotated[str | None, typer.Option(help="montecarlo or variational.", metavar="NAME")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results, one below it for each task; by default outputs."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other setting, such as task2vec.passes=4 or resume=auto.", metavar="NAME=VALUE"
        ),
    ] = None,
) -> None:
    """Embed tasks, one after another."""
    named = {
        "task2vec": method,
        "probe": probe,
        "task2vec.max_samples": max_samples,
    }
    shared = [f"{name}={value}" for name, value in named.items() if value is not None]
    found = [_or_exit(source_of, text) for text in sources]
    status = 0
    for source in found:
        own = ["probe=minilm"] if source.is_text and probe is None else []
        if input_size is not None and not source.is_text:
            own.append(f"probe.input_size={input_size}")
        folder = [] if out is None else [f"hydra.run.dir={Source.quoted(str(out / source.name))}"]
        ended = _run([*source.settings, *own, *shared, *(settings or []), *folder])
        status = ended or status
        if not 0 <= ended < _STOPPED:
            break
    raise typer.Exit(status)


@app.command()
def compare(
    places: Annotated[
        list[str],
        typer.Argument(
            help="Folders of runs or sweeps, files of embeddings, and tasks as `t2v embed` takes them, which are "
            "embedded for this table and not kept.",
            metavar="TASK",
            autocompletion=complete_task,
        ),
    ],
    distance: Distance = "cosine_unit",
    probe: Annotated[
        str | None,
        typer.Option(
            help="The network for tasks; by default that of the embeddings among them, or as in `t2v embed`.",
            autocompletion=complete_probe,
            metavar="NAME",
        ),
    ] = None,
    max_samples: Annotated[
        int, typer.Option(help="Embed at most this many images or texts of a task.")
    ] = 1000,
) -> None:
    """Print how far apart tasks or their embeddings are."""
    _check_name("distance", distance, DISTANCES)
    if (found := _or_exit(check_places, *places)) < 2:
        _fail(f"got {found} task or embedding; a distance is between two, so give another one")
    print_loading()
    from t2v_lightning.cli.comparing import embeddings_of
    from t2v_lightning.functional.distances import pdist
    from t2v_lightning.report.tables import print_table

    def table() -> None:
        embeddings = embeddings_of(places, probe, max_samples)
        print_table(embeddings, pdist(embeddings, distance), Console())

    _or_exit(table)


@app.command()
def recommend(
    task: Annotated[
        str,
        typer.Argument(
            help="The folder of a run, the file of an embedding, or a task as `t2v embed` takes it.",
            metavar="TASK",
            autocompletion=complete_task,
        ),
    ],
    library: Annotated[str, typer.Option(help="Folder of a library, or builtin.")] = "builtin",
    k: Annotated[int, typer.Option("-k", min=1, help="How many networks.")] = 3,
    max_samples: Annotated[int, typer.Option(help="Embed at most this many images or texts.")] = 1000,
    run: Annotated[
        int | None,
        typer.Option("--try", min=2, help="Run this many networks, whose best promises most, on the task."),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Whose results count, where the library has several.")
    ] = None,
) -> None:
    """Say which pretrained networks promise the least error on a task."""
    _or_exit(check_places, task)
    print_loading()
    from t2v_lightning.cli.advising import embedding_for, protocol_of, settings_like, short_list
    from t2v_lightning.library.builtin import open_library
    from t2v_lightning.library.tables import print_recommendation

    def advice() -> None:
        known = open_library(library)
        how = protocol_of(known, protocol)
        tried = {} if run is None else short_list(task, library, run, max_samples)
        if run is None and not embeddings_in(task):
            own = [*source_of(task).settings, *settings_like(known), f"task2vec.max_samples={max_samples}"]
            own += [] if protocol is None else [f"protocol='{how}'"]
            _say("t2v_lightning", [*own, f"library={library}", "recommend=true"])
        embedding = embedding_for(task, known, max_samples)
        print_recommendation(known.recommend(embedding, k=k, protocol=how, **tried), Console())

    _or_exit(advice)


@app.command()
def report(
    places: Places,
    distance: Distance = "cosine_unit",
    output: Annotated[Path | None, typer.Option(help="Folder of the page; by default the first one.")] = None,
) -> None:
    """Write the page, the figures and the tables on many embeddings."""
    _check_name("distance", distance, DISTANCES)
    given = ["--distance", distance, *([] if output is None else ["--output", str(output)])]
    words = [*map(str, places), *given]
    _say("t2v_lightning.report", words)
    from t2v_lightning.report.__main__ import main

    main(words)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def diversity(context: typer.Context) -> None:
    """Say how diverse datasets are; options are those of `python -m t2v_lightning.diversity`."""
    if not {"--help", "-h"} & {*context.args}:
        print_loading()
    from t2v_lightning.diversity.__main__ import main

    main(context.args)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="A benchmark; `t2v list downloads` names them.")],
    root: Annotated[Path, typer.Option(help="Folder of all data.", envvar="DATA_ROOT")],
    remove_archives: Annotated[bool, typer.Option(help="Delete each archive once it is unpacked.")] = False,
) -> None:
    """Fetch a benchmark to where its datamodule reads it."""
    _check_name("download", name, LISTS["downloads"]())
    words = [name, "--root", str(root), *(["--remove-archives"] if remove_archives else [])]
    _say("t2v_lightning.data.download", words)
    from t2v_lightning.data.download.__main__ import main

    raise typer.Exit(main(words))


@app.command("list")
def list_names(
    what: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join([*LISTS][:-1])} or {[*LISTS][-1]}.",
            metavar="WHAT",
            autocompletion=complete_list,
        ),
    ],
) -> None:
    """List the names that other commands take, one a line."""
    _check_name("list", what, LISTS)
    if what == "probes":
        print_loading()
    print_list(what)


def _say(module: str, words: list[str]) -> None:
    """The full command line that a plain one stands for."""
    print(f"$ python -m {module} {' '.join(map(_for_shell, words))}", flush=True)


def _for_shell(word: str) -> str:
    """A word as a shell takes it, as short as that can be.

    >>> print(_for_shell("dataset.root='my photos'"), _for_shell("my photos"), _for_shell("a=1"))
    "dataset.root='my photos'" 'my photos' a=1
    """
    return f'"{word}"' if "'" in word and not set('"$`\\!') & {*word} else shlex.quote(word)


def _run(settings: list[str]) -> int:
    _say("t2v_lightning", settings)
    with subprocess.Popen([sys.executable, "-m", "t2v_lightning", *settings]) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the run got it too: it saves what it has, and then ends
                continue


def _check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Ends with one line of text where a name is not known."""
    if name not in known:
        _fail(f"unknown {kind} {name!r}; allowed are {', '.join(known)}{did_you_mean(name, known)}")


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
