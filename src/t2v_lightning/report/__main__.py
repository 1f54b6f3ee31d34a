"""Report on embeddings of tasks: a page to explore, figures, tables and TensorBoard pages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from t2v_lightning.embedding import Embedding
from t2v_lightning.embedding.collection import find_embeddings, load_embeddings, thumbnails_of
from t2v_lightning.embedding.run_folder import REPORT_FILE
from t2v_lightning.functional.distances import DISTANCES
from t2v_lightning.library import Protocol
from t2v_lightning.library.builtin import open_library
from t2v_lightning.report.comparison import compare
from t2v_lightning.report.tables import print_table
from t2v_lightning.report.taxa import find_icons, task_order, with_taxa
from t2v_lightning.report.writing import write_comparison, write_taxonomy, write_with_library


def main(arguments: Sequence[str] | None = None) -> None:
    """What `python -m t2v_lightning.report` does; exits with 1 and one line of text where it cannot."""
    try:
        _run(_parser().parse_args(arguments))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m t2v_lightning.report", description=__doc__)
    parser.add_argument(
        "places", nargs="+", type=Path, metavar="FOLDER", help="a sweep's folder, or files of embeddings"
    )
    parser.add_argument("--output", type=Path, help="where the report goes; by default into the first FOLDER")
    parser.add_argument("--distance", default="cosine_unit", choices=DISTANCES, metavar="NAME",
                        help=f"one of {', '.join(DISTANCES)}; cosine_unit by default")  # fmt: skip
    parser.add_argument("--alpha", type=float, help="of the distance `asymmetric`, 0.15 by default")
    parser.add_argument("--trivial", type=Path, help="embedding of the trivial task of `asymmetric`")
    parser.add_argument("--max-tasks", type=int, help="report on the first tasks only, at most this many")
    parser.add_argument("--library", type=Path, metavar="FOLDER",
                        help="with a section on which experts of a library, or of builtin, suit the tasks")  # fmt: skip
    parser.add_argument("--protocol", help="of the library's results, where it has several")
    taxonomy = parser.add_argument_group("tasks of CUB-200 and iNaturalist")
    taxonomy.add_argument("--taxonomy", action="store_true", help="compare distances with those of the taxa")
    taxonomy.add_argument("--data-root", type=Path, metavar="FOLDER",
                          help="folder of inat2018/categories.json, for embeddings without their taxon")  # fmt: skip
    taxonomy.add_argument("--icons", type=Path, metavar="FOLDER",
                          help="folder of <taxon>-200px.png for the diagonal; by default iconic_taxa, in the data "
                          "root, static/ or here, where there is one")  # fmt: skip
    return parser


def _run(options: argparse.Namespace) -> None:
    if not options.taxonomy and (options.data_root or options.icons):
        raise ValueError("--data-root and --icons belong to --taxonomy, which is not set; add it")
    if options.taxonomy and options.library:
        raise ValueError("--library and --taxonomy are two reports; give one of them")
    if options.protocol and not options.library:
        raise ValueError("--protocol belongs to --library, which is not set; add it")
    library = None if options.library is None else open_library(options.library)
    paths = find_embeddings(options.places)
    embeddings, thumbnails = load_embeddings(paths), thumbnails_of(paths)
    if options.distance != "asymmetric" and not (options.alpha is None and options.trivial is None):
        raise ValueError("--alpha and --trivial belong to --distance asymmetric, which is not set; add it")
    if options.taxonomy:
        thumbnails = [thumbnails[i] for i in task_order(embeddings)]
        embeddings = with_taxa(embeddings, options.data_root)
    if options.max_tasks is not None:
        if options.max_tasks < 2:
            raise ValueError(f"got --max-tasks {options.max_tasks}; distances need two tasks or more")
        embeddings, thumbnails = embeddings[: options.max_tasks], thumbnails[: options.max_tasks]
    extra = {"alpha": options.alpha, "trivial": options.trivial and Embedding.load(options.trivial)}
    comparison = compare(embeddings, options.distance, **{k: v for k, v in extra.items() if v is not None})
    first = options.places[0]
    folder = options.output or (first if first.is_dir() else first.parent)
    if options.taxonomy:
        icons = find_icons(comparison.embeddings, options.icons, options.data_root)
        write_taxonomy(comparison, folder, icons, thumbnails)
    elif library is not None:
        protocol = options.protocol and Protocol.parse(options.protocol)
        write_with_library(comparison, library, folder, protocol, thumbnails)
    else:
        write_comparison(comparison, folder, thumbnails=thumbnails)
    console = Console()
    print_table(embeddings, comparison.matrix, console)
    console.print(f"open {(folder / REPORT_FILE).resolve()}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
