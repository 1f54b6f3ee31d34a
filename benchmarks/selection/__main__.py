"""The command line of the benchmark: `fetch`, `measure`, `table`, and `library`, which keeps what was found."""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch

from selection import same_images
from selection.embeddings import measure_embeddings
from selection.experts import Setting, expert_names
from selection.figure import draw_regrets
from selection.packages import fetch
from selection.recommended import follow, whole_library
from selection.replicate import Replicate, load_replicate
from selection.rows import FREE, MODEL2VEC, RUNNING, SHORT_LIST
from selection.scores import measure_scores
from selection.table import HELD, judge, markdown
from selection.tasks import BUILTIN, SOURCES
from selection.truth import half_of, measure_truth
from selection.verdict import interval

HEAD = "lbfgs"
"""Of the embeddings."""
HALVES = {"choose": 0, "report": 1}
REPLICATES = [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)]
"""Seeds of experts with the number of a draw: three of the one, five of the other."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m selection", description=__doc__)
    parser.add_argument("what", choices=("fetch", "measure", "table", "library"))
    parser.add_argument("--cache", type=Path, required=True, help="folder of packages and of all results")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96], help="of images in pixels")
    parser.add_argument("--replicates", type=_pair, nargs="+", default=REPLICATES, help="seed:draw")
    parser.add_argument("--builtin", action="store_true", help="only the tasks that need no packages")
    parser.add_argument("--families", choices=HALVES, default="report", help="half that the table is made of")
    parser.add_argument("--to", type=Path, help="folder of the library that is written, one size at a time")
    parser.add_argument("--figure", type=Path, help="where the picture of the table goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "fetch":
        fetch(options.cache / "packages")
        return
    sources = tuple(BUILTIN if options.builtin else SOURCES)
    for size in options.sizes:
        setting = Setting(options.cache, size, sources)
        if options.what == "measure":
            measure(setting, options.replicates, not options.builtin)
        elif options.what == "library":
            if options.to is None or len(options.sizes) > 1:
                parser.error("library needs --to FOLDER and one of the --sizes")
            seed, number = options.replicates[0]
            replicate = load_replicate(setting, seed, number, HEAD, not options.builtin)
            whole_library(replicate).save(options.to)
        else:
            report(setting, options.replicates, options.families, options.figure)


def measure(setting: Setting, replicates: Sequence[tuple[int, int]], larger_ones: bool = True) -> None:
    """Everything that the table needs; what has a file is left alone."""
    measure_embeddings(setting, HEAD, sorted({number for _, number in replicates}))
    for seed, number in replicates:
        for name in expert_names(setting, larger_ones):
            measure_truth(setting, name, seed)
            measure_scores(setting, name, seed, [number])
        print(f"{setting.size} px, seed {seed}, draw {number}: done", flush=True)


def report(
    setting: Setting, pairs: Sequence[tuple[int, int]], families: str, figure: Path | None = None
) -> None:
    """Prints the table; answers of its rows are kept, so that it can be printed again in no time."""
    every = [load_replicate(setting, seed, number, HEAD) for seed, number in pairs]
    first = every[0]
    names = list(first.families)
    tasks = np.array([i for i, name in enumerate(names) if half_of(name, names) == HALVES[families]])
    chosen = [names[i] for i in tasks]
    print(f"\n{setting.size} px: {len(tasks)} tasks of {', '.join(sorted(set(chosen)))}")
    print(f"library: {len(names)} tasks of {len(set(names))} families, {len(first.experts)} experts")
    print(f"{len(every)} replicates (seed, draw): {', '.join(map(str, pairs))}\n")
    scored = [r for r in every if r.scores is not None]
    kept = setting.path("_".join(["verdicts", families, *(f"{seed}-{number}" for seed, number in pairs)]))
    verdicts = [*judge(FREE, every, tasks, kept), *judge([MODEL2VEC], every[:1], tasks, kept)]
    if scored:
        verdicts += judge(RUNNING, scored, tasks, kept)
    default = next(v for v in verdicts if v.row.title == "ImageNet always")
    print("\n".join(markdown(verdicts, chosen, default)))
    print(f"\nscores: {len(scored)} replicates; MODEL2VEC: one")
    if figure is not None:
        draw_regrets(verdicts, chosen).savefig(figure, dpi=130)
    _same_images(every)
    _followed(every, tasks.tolist(), chosen)


def _followed(replicates: Sequence[Replicate], tasks: Sequence[int], families: Sequence[str]) -> None:
    print("\n`TaskLibrary.recommend`, means over replicates")
    runs = (0, SHORT_LIST)
    found = {held: [follow(replicate, held, tasks, runs) for replicate in replicates] for held in HELD}
    for (place, run), held in product(enumerate(runs), HELD):
        answers = [of_replicate[place] for of_replicate in found[held]]
        regrets = np.mean([one.regrets for one in answers], axis=0)
        low, high = interval(regrets, families)
        covered, regret_covered, worse, far = (
            np.mean([getattr(one, name) for one in answers])
            for name in ("covered", "regret_covered", "worse_than_said", "far")
        )
        print(
            f"{held} held out, {run} experts tried: regret {regrets.mean():.1f} ({low:.1f} to {high:.1f}); 90 % "
            f"intervals hold {covered:.0%} of errors and {regret_covered:.0%} of regrets; worse than ImageNet always "
            f"by more than it said for {worse:.1%} of questions; far from all for {far:.0%}",
            flush=True,
        )


def _same_images(replicates: Sequence[Replicate]) -> None:
    print("\n| tasks on the same images | " + " | ".join(same_images.DESCRIPTIONS) + " | any of them |")
    print("|---|---|---|---|---|")
    found = same_images.ask(replicates)
    names = [*same_images.DESCRIPTIONS, "chance"]
    for group, told in found.items():
        cells = [f"{told[name].told:.2f}, {told[name].regret:.1f} points" for name in names]
        print(f"| {', '.join(group)} | {' | '.join(cells)} |")
    for what in ("told", "regret"):
        cells = []
        for name in names:
            values = np.array([getattr(told[name], what) for told in found.values()])
            low, high = interval(values, [group[0] for group in found])
            cells.append(f"{values.mean():.2f} ({low:.2f} to {high:.2f})")
        print(f"| mean, {what} | {' | '.join(cells)} |")


def _pair(text: str) -> tuple[int, int]:
    seed, number = text.split(":")
    return int(seed), int(number)


if __name__ == "__main__":
    main()
