"""The command line of the benchmark: `fetch`, `measure`, `table`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from selection import same_images
from selection.embeddings import measure_embeddings
from selection.experts import Setting, expert_names
from selection.figure import draw_regrets
from selection.packages import fetch
from selection.recommended import follow
from selection.replicate import Replicate, load_replicate
from selection.rows import FREE, MODEL2VEC, RUNNING
from selection.scores import measure_scores
from selection.table import HELD, judge, markdown
from selection.tasks import BUILTIN, DRAWS, SOURCES
from selection.truth import half_of, measure_truth
from selection.verdict import interval

HEAD = "lbfgs"
"""Of the embeddings."""
BEFORE = {"choose": 0, "report": 1}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m selection", description=__doc__)
    parser.add_argument("what", choices=("fetch", "measure", "table"))
    parser.add_argument("--cache", type=Path, required=True, help="folder of packages and of all results")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96], help="of images in pixels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the experts")
    parser.add_argument("--draws", type=int, nargs="+", default=list(range(DRAWS)), help="of few images")
    parser.add_argument("--builtin", action="store_true", help="only the tasks that need no packages")
    parser.add_argument("--families", choices=BEFORE, default="report", help="half that the table is made of")
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
            measure(setting, options.seeds, options.draws, not options.builtin)
        else:
            report(setting, options.seeds, options.draws, BEFORE[options.families], options.figure)


def measure(setting: Setting, seeds: Sequence[int], draws: Sequence[int], larger_ones: bool = True) -> None:
    """Everything that the table needs; what has a file is left alone."""
    measure_embeddings(setting, HEAD, draws)
    for seed in seeds:
        for name in expert_names(setting, larger_ones):
            measure_truth(setting, name, seed)
            measure_scores(setting, name, seed, draws)
            print(f"{setting.size} px, seed {seed}: {name}", flush=True)


def report(
    setting: Setting, seeds: Sequence[int], draws: Sequence[int], half: int, figure: Path | None
) -> None:
    """Prints the table of the replicates that are complete."""
    replicates = {(s, d): load_replicate(setting, s, d, HEAD) for s in seeds for d in draws}
    first = next(iter(replicates.values()))
    families = list(first.families)
    tasks = np.array([i for i, name in enumerate(families) if half_of(name, families) == half])
    chosen = [families[i] for i in tasks]
    print(f"\n{setting.size} px: {len(tasks)} tasks of {', '.join(sorted(set(chosen)))}")
    print(f"library: {len(families)} tasks of {len(set(families))} families, {len(first.experts)} experts")
    print(f"{len(replicates)} replicates\n")
    every = list(replicates.values())
    scored = [r for r in every if r.scores is not None]
    verdicts = list(judge(FREE, every, tasks))
    verdicts += judge([MODEL2VEC], every[:1], tasks)
    verdicts += judge(RUNNING, scored, tasks) if scored else []
    default = next(v for v in verdicts if v.row.title == "ImageNet always")
    print("\n".join(markdown(verdicts, chosen, default)))
    print(f"\nscores: {len(scored)} replicates; MODEL2VEC: one")
    _followed(every[0], tasks, chosen)
    _same_images([r for (seed, _), r in replicates.items() if seed == seeds[0]])
    if figure is not None:
        drawn = draw_regrets(verdicts, chosen)
        drawn.savefig(figure, dpi=130)


def _followed(replicate: Replicate, tasks: Sequence[int], families: Sequence[str]) -> None:
    print("\n`TaskLibrary.recommend`, first replicate")
    for held in HELD:
        found = follow(replicate, held, tasks)
        low, high = interval(found.regrets, families)
        print(
            f"{held} held out: regret {found.regrets.mean():.1f} ({low:.1f} to {high:.1f}); 90 % intervals hold "
            f"{found.covered.mean():.0%} of errors and {found.regret_covered.mean():.0%} of regrets; worse than "
            f"ImageNet always by more than it said for {np.mean(found.worse_than_default > 0):.0%} of tasks; "
            f"far from all for {found.far.mean():.0%}"
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


if __name__ == "__main__":
    main()
