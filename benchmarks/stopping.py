"""How far a stopped embedding is from the one over all images, against the standard error that it reports.

    python benchmarks/stopping.py [--task digits] [--target 0.15] [--head-epochs 1] [--size 64] [--seeds 20]

One built-in task and one probe with a fitted head; each seed gives another visiting order and other random signs. The
Fisher phase runs with `target_stderr`: its estimate when it asks to stop is the stopped embedding, and it then
continues to the last image, which gives the embedding over all images. Goal: in at least 90 % of seeds their
relative L2 distance is below twice the reported relative standard error. The last column compares with `exact`
over all images, which has no random signs in common with the stopped embedding.
"""

import argparse

import torch
from fitted import BATCH, FittedTask, exact_fisher, fitted_task, relative_error

from t2v_lightning.data import get_datamodule
from t2v_lightning.functional.fisher_sums import FisherEstimate, estimate
from t2v_lightning.phases import HeadOptions, MonteCarloOptions, MonteCarloPhase, fisher_of_filters


def stopped_and_full(fitted: FittedTask, target: float, seed: int) -> tuple[FisherEstimate, FisherEstimate]:
    engine = fisher_of_filters(fitted.probe, 0, "weights")
    options = MonteCarloOptions(target_stderr=target)
    phase = MonteCarloPhase(fitted.probe, fitted.task, engine, options, seed)
    stopped: FisherEstimate | None = None
    for positions in phase.order(0).split(BATCH):
        phase.step(fitted.images[positions], positions)
        if phase.done and stopped is None:
            stopped = estimate(phase.sums)
    whole = estimate(phase.sums)
    return stopped or whole, whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="digits")
    parser.add_argument("--target", type=float, default=0.15)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--head-epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = HeadOptions(epochs=options.head_epochs)
    datamodule = get_datamodule(options.task)
    datamodule.setup()
    fitted = fitted_task(datamodule.train_dataset, head, options.size)
    truth = exact_fisher(fitted)
    print(f"{'seed':>4s}  {'images':>6s}  {'reported':>8s}  {'to all':>8s}  {'to exact':>8s}")
    below_all, below_exact = 0, 0
    for seed in range(options.seeds):
        stopped, full = stopped_and_full(fitted, options.target, seed)
        reported = stopped.relative_stderr
        to_all = relative_error(stopped.fisher, full.fisher)
        to_exact = relative_error(stopped.fisher, truth)
        below_all += to_all < 2 * reported
        below_exact += to_exact < 2 * reported
        print(
            f"{seed:4d}  {int(stopped.samples):6d}  {reported:8.4f}  {to_all:8.4f}  {to_exact:8.4f}",
            flush=True,
        )
    print(
        f"below twice the reported standard error: {below_all / options.seeds:.0%} against all images, "
        f"{below_exact / options.seeds:.0%} against exact"
    )


if __name__ == "__main__":
    main()
