"""The first second of the command line: help, typing errors and a sign of life, before torch and Lightning load."""

from __future__ import annotations

import os
import sys

from t2v_lightning._version import __version__
from t2v_lightning.cli.help_page import help_page
from t2v_lightning.cli.overrides import check


def main() -> None:
    """Embeds one task, or every task of a sweep (`-m`); exits with 1 if one fails, with 128 + signal on a signal."""
    words = sys.argv[1:]
    if {"--help", "-h"} & {*words}:
        try:
            print(help_page(words), flush=True)
        except BrokenPipeError:  # of `--help | head`; what Python still wants to flush goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if "--version" in words:
        print(__version__)
        return
    try:
        check(words)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if not _is_part_of_a_run(words):
        print_loading()
    try:
        from t2v_lightning.cli.run import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


def print_loading() -> None:
    """Says that something happens."""
    print(f"t2v_lightning {__version__}: loading PyTorch and Lightning", file=sys.stderr, flush=True)


def _is_part_of_a_run(words: list[str]) -> bool:
    """Whether this process is another rank, or a job of a sweep that has said so already."""
    is_rank = "LOCAL_RANK" in os.environ or os.environ.get("SLURM_PROCID", "0") != "0"
    return is_rank or any(word.startswith("hydra.job.num=") for word in words)
