"""`python -m t2v_lightning.data.download <name> --root R` fetches a benchmark to where its datamodule reads it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from t2v_lightning.data.download.catalogue import CATALOGUE, fetch_all

_MEMBERS: dict[str, tuple[str, ...]] = {
    "letters": ("emnist_letters",),
    "split_mnist": ("mnist",),
    "split_cifar": ("cifar10", "cifar100"),
    "cifar10_mnist": ("cifar10", "mnist"),
    "cub_inat2018": ("cub200", "inat2018"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetches what the command line names.

    Returns the exit status: 0 if all went well, 1 after an error, 130 after an interrupt. Wrong arguments exit with 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m t2v_lightning.data.download",
        description="Fetch a benchmark: check the free space, download, verify and unpack. Can be interrupted and "
        "run again at any time.",
    )
    parser.add_argument(
        "name", choices=[*CATALOGUE, *_MEMBERS], metavar="name", help=", ".join([*CATALOGUE, *_MEMBERS])
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=os.environ.get("DATA_ROOT"),
        help="folder of all data; default: the environment variable DATA_ROOT",
    )
    parser.add_argument(
        "--remove-archives", action="store_true", help="delete each archive once it is unpacked"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    chosen = parser.parse_args(arguments)
    if chosen.root is None:
        parser.error("pass --root <folder> or set DATA_ROOT")
    root = Path(chosen.root).expanduser()
    try:
        for name in _MEMBERS.get(chosen.name, (chosen.name,)):
            fetch_all(
                CATALOGUE[name], root, progress=not chosen.quiet, keep_archives=not chosen.remove_archives
            )
            print(f"{name} is complete in {root}")
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: the same command resumes from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
