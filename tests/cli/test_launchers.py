"""Every launcher gives what the basic one gives, and survives a job that is killed. Each starts real processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from job_folders import folder_of

from t2v_lightning import Embedding
from t2v_lightning.cli.run import CONFIGS
from t2v_lightning.cli.sweep import register_launchers
from t2v_lightning.cli.sweep_checks import LAUNCHERS, is_installed

TESTS = Path(__file__).parents[1]
SWEEP = [
    "-m", "evaluate=false", "probe.input_size=32", "task2vec.max_samples=20", "task2vec.head.num_samples=200",
    "task2vec.head.epochs=1", "dataset.batch_size=10", "~logger", "trainer.accelerator=cpu",
    "dataset.name=digits_low,digit,digits_high,textures",
]  # fmt: skip
DYING = ["+logger._target_=dying_logger.die_in", "+logger.job=2"]


def train(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of `train.py`."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(TESTS.parent / "train.py"), *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def by_the_basic_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("basic")
    code, shown = train(folder, *SWEEP)
    assert code == 1
    assert "3 of 4 embeddings" in shown
    return folder / "multirun" / "montecarlo"


def missing(launcher: str) -> str:
    """Why a launcher cannot be tried here, or nothing."""
    if not is_installed(LAUNCHERS[launcher]):
        return f"needs {LAUNCHERS[launcher]}"
    if launcher == "submitit_slurm":
        sinfo = shutil.which("sinfo")
        if sinfo is None or subprocess.run([sinfo], capture_output=True, check=False).returncode:
            return "needs a Slurm that answers"
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
def test_a_launcher_gives_the_files_of_the_basic_one_and_outlives_a_killed_job(
    launcher: str, by_the_basic_launcher: Path, tmp_path: Path
) -> None:
    if reason := missing(launcher):
        pytest.skip(reason)
    words = [*SWEEP, f"hydra/launcher={launcher}"]
    code, shown = train(tmp_path, *words, *DYING)
    assert code == 1, shown
    assert "Traceback" not in shown
    assert "job 1 (dataset.name=digit) failed: got dataset 'digit'" in shown
    assert "job 2 (dataset.name=digits_high) failed: " in shown
    assert "neither an embedding nor a reason" not in shown
    assert "2 of 4 embeddings" in shown
    folder = tmp_path / "multirun" / "montecarlo"
    first_and_last = [
        folder_of(folder, task) / "embedding.safetensors" for task in ("digits_low", "textures")
    ]
    kept = [path.stat() for path in first_and_last]

    code, shown = train(tmp_path, *words, "resume=auto")
    assert code == 1, shown
    assert "job 2 (" not in shown
    assert "3 of 4 embeddings" in shown
    assert [path.stat() for path in first_and_last] == kept
    for task in ("digits_low", "digit", "digits_high", "textures"):
        jobs = [folder_of(sweep, task) for sweep in (folder, by_the_basic_launcher)]
        names = [sorted(str(path.relative_to(job)) for path in job.rglob("*")) for job in jobs]
        assert names[0] == names[1]
        if task != "digit":
            mine, basic = (Embedding.load(job / "embedding.safetensors") for job in jobs)
            assert mine == basic
    assert (folder / "distances.csv").read_text() == (by_the_basic_launcher / "distances.csv").read_text()


@pytest.mark.slow
def test_a_job_killed_in_a_process_of_its_own_leaves_the_others(tmp_path: Path) -> None:
    """The basic launcher, asked for a process for each job."""
    code, shown = train(tmp_path, *SWEEP, "own_process=true", *DYING)
    assert code == 1, shown
    assert (
        "job 2 (dataset.name=digits_high) failed: its process was killed by SIGKILL: out of memory?" in shown
    )
    assert "2 of 4 embeddings" in shown


@pytest.mark.slow
def test_ranks_in_a_launchers_worker(by_the_basic_launcher: Path, tmp_path: Path) -> None:
    """A worker of joblib has no command line of its own that a Trainer could start its further processes with."""
    if reason := missing("joblib"):
        pytest.skip(reason)
    code, shown = train(
        tmp_path,
        *SWEEP,
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=1",
        "trainer=ddp",
        "trainer.devices=2",
    )
    assert code == 1, shown
    assert shown.count("GLOBAL_RANK: 1, MEMBER: 2/2") == 3
    assert "3 of 4 embeddings" in shown
    for task in ("digits_low", "digits_high", "textures"):
        job = folder_of(tmp_path / "multirun" / "montecarlo", task)
        assert (job / "embedding.safetensors").exists()


# --- without processes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
def test_the_settings_of_a_launcher_are_those_that_it_takes(launcher: str) -> None:
    if reason := missing(launcher.replace("slurm", "local")):
        pytest.skip(reason)
    from hydra.core.plugins import Plugins
    from hydra.utils import instantiate

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(
            "config", [f"hydra/launcher={launcher}", "trainer.devices=3"], return_hydra_config=True
        )
    made = instantiate(config.hydra.launcher, _target_=config.hydra.launcher._target_)
    register_launchers()
    assert config.hydra.launcher._target_ in Plugins.instance().class_name_to_class
    if launcher == "submitit_slurm":
        assert made.options["tasks_per_node"] == 3
        assert made.options["slurm_array_parallelism"] == 256
