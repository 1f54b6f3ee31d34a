"""How many threads a run computes with, beside whatever else uses the CPUs."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from pytorch_lightning import Trainer

from t2v_lightning.cli import threads
from t2v_lightning.cli.run import CONFIGS, run
from t2v_lightning.cli.threads import SETTING, fitting_threads, free_cpus, usable_cpus


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SETTING, "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes `/proc/stat` tell of CPUs, each idle for a share of the time, of which this process may use some."""

    def make(idle: list[float], usable: int | None = None, own: set[int] | None = None) -> None:
        stat, clock = tmp_path / "stat", [0.0]

        def write(seconds: float) -> None:
            clock[0] += seconds
            shares = [100 * clock[0] * share for share in idle]
            lines = [
                f"cpu{i} {700 + 100 * clock[0] - share:.0f} 7 7 {500 + share:.0f} 3 0 0 0 0 0"
                for i, share in enumerate(shares)
            ]
            stat.write_text("\n".join(["cpu 1 2 3 4 5", *lines, "intr 99 0 0"]))

        write(0)
        monkeypatch.setattr(threads, "_STAT", stat)
        monkeypatch.setattr(threads, "cpu_count", lambda: len(idle) if usable is None else usable)
        monkeypatch.setattr("time.sleep", write)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: own or set(range(len(idle))), raising=False)
        monkeypatch.setattr("os.sysconf", lambda name: {"SC_CLK_TCK": 100}[name], raising=False)

    return make


@pytest.mark.parametrize(
    ("idle", "free"),
    [([1, 1], 2), ([0.96, 0.84], 2), ([1, 0], 1), ([0.6, 0.6], 1), ([0, 0], 0), ([1] * 14 + [0, 0], 14)],
)
def test_idle_cpus_are_counted(idle: list[float], free: int, machine: Any) -> None:
    machine(idle)
    assert free_cpus() == free


def test_only_the_cpus_of_this_process_count(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine([0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0], own={2, 3, 4, 11})
    assert free_cpus() == 2
    machine([1] * 8, usable=3)  # the quota of a container
    assert free_cpus() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert usable_cpus() == free_cpus() == 2


def test_all_count_where_the_system_does_not_tell(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine([0] * 6)
    monkeypatch.setattr(threads, "_STAT", Path("/nowhere/stat"))
    assert free_cpus() == 6
    machine([0] * 4, own={8, 9, 10, 11})  # a container with numbers of its own
    assert free_cpus() == 4
    machine([0] * 4)
    monkeypatch.setattr("time.sleep", lambda _: None)  # a sandbox whose clocks stand still
    assert free_cpus() == 4


@pytest.mark.parametrize(
    ("idle", "processes", "expected"),
    [
        ([1] * 4, 1, 4),
        ([1, 1, 1, 0], 1, 3),
        ([1, 1, 1, 0], 2, 1),
        ([1] * 8, 2, 4),
        ([0, 0], 1, 1),
        ([0, 0], 2, 1),
    ],
)
def test_a_run_takes_what_is_free_and_gives_it_back(
    idle: list[float], processes: int, expected: int, machine: Any
) -> None:
    machine(idle)
    before = torch.get_num_threads()

    def fit() -> None:
        with fitting_threads(processes):
            assert torch.get_num_threads() == expected
            assert os.environ.get(SETTING) == (str(expected) if processes > 1 else None)
            raise RuntimeError("a fit that fails")

    with pytest.raises(RuntimeError, match="a fit that fails"):
        fit()
    assert torch.get_num_threads() == before
    assert SETTING not in os.environ


def test_a_busy_machine_is_mentioned(machine: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    machine([1, 1, 1, 1])
    with fitting_threads():
        assert not caplog.messages
    machine([0, 0, 0, 1])
    with fitting_threads():
        assert "computing with 1 of 4 CPUs" in caplog.text
        assert "OMP_NUM_THREADS sets another number" in caplog.text


def test_a_resumed_run_keeps_its_number(machine: Any) -> None:
    machine([0, 0])
    with fitting_threads(1, former=3):
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("state", "expected"), [({"threads": 3}, 3), ({}, 2)], ids=["known", "older"])
def test_a_resumed_run_asks_its_checkpoint(
    state: dict[str, int], expected: int, machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine([1, 1])
    seen: list[int] = []

    def fit(*arguments: Any, **options: Any) -> None:
        seen.append(torch.get_num_threads())
        raise RuntimeError("far enough")

    monkeypatch.setattr(Trainer, "fit", fit)
    checkpoint = tmp_path / "last.ckpt"
    torch.save({"pytorch-lightning_version": "2.6.0", "t2v_lightning": state}, checkpoint)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", ["~logger", "trainer.accelerator=cpu", f"resume={checkpoint}"])
    with pytest.raises(RuntimeError, match="far enough"):
        run(config, tmp_path / "run")
    assert seen == [expected]


def test_the_user_comes_first(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine([1] * 4)
    monkeypatch.setenv(SETTING, "1")
    with fitting_threads(2, former=3):
        assert torch.get_num_threads() == 1
    assert os.environ[SETTING] == "1"


def test_a_rank_takes_its_own_share_without_looking_at_the_others(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine([0] * 4)
    monkeypatch.setenv("LOCAL_RANK", "1")
    before = torch.get_num_threads()
    try:
        for number, expected in ((8, 4), (2, 2)):
            torch.set_num_threads(number)
            with fitting_threads(2):
                assert torch.get_num_threads() == expected
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)
