"""`benchmarks/selection` on the built-in tasks alone: advice of a library against the usual alternatives."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_advice_on_built_in_tasks_beats_chance_the_nearest_expert_and_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    from selection.__main__ import HEAD, measure
    from selection.experts import Setting
    from selection.replicate import load_replicate
    from selection.rows import FREE, RUNNING
    from selection.table import judge
    from selection.tasks import BUILTIN

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        setting = Setting(tmp_path, 64, tuple(BUILTIN))
        measure(setting, [(0, 0)], larger_ones=False)
    finally:
        torch.set_num_threads(threads)
    replicate = load_replicate(setting, 0, 0, HEAD, larger_ones=False)
    assert len(replicate.tasks) == 18
    assert len(replicate.experts) == 9
    assert np.isfinite(replicate.errors).all()
    # digits learned by an expert are easy for it, also under other labels
    at = replicate.errors[replicate.tasks.index("digits_low")]
    assert at[replicate.experts.index("digits")] < 0.5 * at[replicate.experts.index("imagenet")]
    everything = np.arange(len(replicate.tasks))
    regrets = {
        v.row.title: v.regrets["task"].mean() for v in judge([*FREE, *RUNNING], [replicate], everything)
    }
    advice = regrets["kernel ridge, mixture"]
    assert advice < 0.5 * regrets["chance"]
    assert advice < 0.7 * regrets["nearest expert, Task2Vec"]
    assert advice < regrets["ImageNet always"]
    assert advice < 0.8 * regrets["static list"]
    assert regrets["kernel ridge, best 8 probed"] < 0.7 * advice
