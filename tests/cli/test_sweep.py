"""Sweeps, from outside: what is refused, what a failed job means for the others, what is done again."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from job_folders import folder_of
from omegaconf import OmegaConf
from PIL import Image

from t2v_lightning import Embedding
from t2v_lightning.cli.run import main
from t2v_lightning.cli.sweep import SweepReport, _prefer_command_line, labels_of, say
from t2v_lightning.cli.sweep_checks import LAUNCHERS
from t2v_lightning.embedding.collection import jobs_of_sweep
from t2v_lightning.embedding.run_folder import SWEEP_MARKER
from t2v_lightning.functional.distances import pdist

ROOT = Path(__file__).parents[2]
TINY = [
    "probe.input_size=32", "task2vec.max_samples=20", "task2vec.head.num_samples=200", "task2vec.head.epochs=1",
    "dataset.batch_size=10", "evaluate=false", "~logger",
]  # fmt: skip


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and no trace of an earlier sweep or of processes started around this one."""
    GlobalHydra.instance().clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SweepReport, "current", None)
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


def train(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    """The exit code of `train.py -m ...` in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *overrides])
    try:
        main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def test_a_failed_job_is_listed_and_resuming_does_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = [*TINY, "dataset.name=digits_low,digit,textures"]
    assert train(monkeypatch, *sweep) == 1
    shown = capsys.readouterr().out
    assert "Traceback" not in shown
    assert (
        "job 1 (dataset.name=digit) failed: got dataset 'digit', which does not exist; did you mean" in shown
    )
    places = [
        shown.index(text) for text in ("job 0: digits_low", "digits_low: 20 images", "job 1: digit", "job 2:")
    ]
    assert places == sorted(places), "each job says which it is before anything else is said of it"
    assert "2 of 3 embeddings" in shown
    folder = tmp_path / "multirun" / "montecarlo"
    files = [folder_of(folder, task) / "embedding.safetensors" for task in ("digits_low", "textures")]
    embeddings = [Embedding.load(file) for file in files]
    assert [e.meta["dataset"] for e in embeddings] == ["digits_low", "textures"]
    with (folder / "distances.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["task", "digits_low", "textures"]
    written = np.array([[float(x) for x in row[1:]] for row in rows[1:]])
    np.testing.assert_allclose(written, pdist(embeddings, "cosine_unit"), rtol=1e-9, atol=1e-12)
    with Image.open(folder / "distance_matrix.png") as picture:
        picture.load()
        assert min(picture.size) > 200
    assert any((folder / "tensorboard").glob("**/events.out.*"))
    assert any((folder / "tensorboard").glob("**/*metadata.tsv"))
    for word in ("digits_low", "textures", "norm", "nearest", str(folder)):
        assert word in shown, word

    # one finished file goes, one stays: only the first is made again, to the last digit
    files[1].unlink()
    stamp = files[0].stat()
    assert train(monkeypatch, *sweep, "resume=auto") == 1
    shown = capsys.readouterr().out
    assert shown.count("kept:") == 1
    assert "2 of 3 embeddings" in shown
    assert (files[0].stat().st_ino, files[0].stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    assert [Embedding.load(file) for file in files] == embeddings
    assert not list(tmp_path.glob("**/*.tmp*"))


def test_other_settings_are_embedded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resuming keeps an embedding when only the speed has changed, and makes it again when the answer would."""
    sweep = tmp_path / "multirun" / "montecarlo"
    assert train(monkeypatch, *TINY, "dataset.name=textures_ground") == 0
    folder = folder_of(sweep, "textures_ground")
    first = (folder / "embedding.safetensors").read_bytes()
    faster = ("dataset.batch_size=7", "dataset.persistent_workers=true")
    assert train(monkeypatch, *TINY, "dataset.name=textures_ground", "resume=auto", *faster) == 0
    assert "kept:" in capsys.readouterr().out
    assert (folder / "embedding.safetensors").read_bytes() == first
    assert train(monkeypatch, *TINY, "dataset.name=textures_ground", "resume=auto", "seed=1") == 0
    assert "kept:" not in capsys.readouterr().out
    assert (folder / "embedding.safetensors").read_bytes() == first
    seeds = [Embedding.load(path).meta["seed"] for path in sweep.glob("*/embedding.safetensors")]
    assert sorted(seeds) == [0, 1]


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["hydra/launcher=submitit_slurm", "trainer=ddp"],
            "got trainer.devices=auto with hydra/launcher=submitit_slurm",
        ),
        (["report.distance=euclidean"], "got report.distance='euclidean'; allowed are cosine, kl"),
    ],
    ids=str,
)
def test_a_sweep_that_cannot_work_is_refused_before_it_starts(
    overrides: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(LAUNCHERS, "submitit_slurm", "hydra")
    assert train(monkeypatch, "dataset.name=digits,textures", *overrides) == 1
    shown = capsys.readouterr().out
    assert text in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.iterdir())


def test_a_missing_launcher_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(LAUNCHERS, "submitit_local", "no.such.module")
    assert train(monkeypatch, "dataset.name=digits,textures", "hydra/launcher=submitit_local") == 1
    assert "pip install 't2v-lightning[submitit]'" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


# --- the report, on folders made by hand ---------------------------------------------------------------------


def make_sweep(folder: Path, *names: str, failed: str = "") -> list[Path]:
    folder.mkdir()
    (folder / SWEEP_MARKER).touch()
    jobs = []
    for number, name in enumerate(names):
        job = folder / str(number)
        (job / ".hydra").mkdir(parents=True)
        (job / ".hydra" / "overrides.yaml").write_text(f"- seed=3\n- dataset.name={name}\n")
        if name == failed:
            (job / "failed.txt").write_text("no such file:\n   /data/photos")
        elif name != "killed":
            meta = {"dataset": name, "task_name": name, "method": "montecarlo"}
            Embedding(fisher=np.arange(1.0, 5.0) + number, scale=np.ones(4), meta=meta).save(
                job / "embedding.safetensors"
            )
        jobs.append(job)
    return jobs


def report_on(folder: Path, planned: int) -> SweepReport:
    report = SweepReport()
    report._folder, report._distance, report._planned = folder, "cosine", planned
    report.report()
    return report


def test_the_report_counts_jobs_that_failed_died_or_never_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    make_sweep(folder, "a", "b", "killed", "c", failed="b")
    report = report_on(folder, planned=6)
    shown = capsys.readouterr().out
    assert report.failures == 4
    assert "job 1 (dataset.name=b) failed: no such file: /data/photos\n" in shown
    assert "job 2 (dataset.name=killed) failed: it left neither an embedding nor a reason" in shown
    assert "2 jobs were never started" in shown
    assert "2 of 6 embeddings" in shown
    assert (folder / "distances.csv").exists()


def test_the_projector_has_the_pictures_that_the_jobs_have_left(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    jobs = make_sweep(folder, "a", "killed", "b", "c")
    for job, colour in ((jobs[0], "red"), (jobs[3], "blue")):
        log = job / "tensorboard" / "task"
        log.mkdir(parents=True)
        Image.new("RGB", (96, 96), colour).save(log / "thumbnail.png")
    report_on(folder, planned=4)
    with Image.open(next(folder.glob("tensorboard/sweep/**/sprite.png"))) as picture:
        found = [picture.convert("RGB").getpixel(place) for place in ((5, 5), (101, 5), (5, 101))]
    assert found == [(255, 0, 0), (211, 211, 211), (0, 0, 255)]


def test_a_report_without_distances_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep"
    jobs = make_sweep(folder, "a", "b")
    Embedding(fisher=np.ones(7), scale=np.ones(7), meta={}).save(jobs[1] / "embedding.safetensors")
    report = report_on(folder, planned=2)
    assert report.failures == 0
    assert "no distances: " in capsys.readouterr().out
    assert not (folder / "distances.csv").exists()


def test_a_torn_embedding_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep"
    jobs = make_sweep(folder, "a", "b", "c")
    (jobs[1] / "embedding.safetensors").write_bytes(b"torn")
    assert report_on(folder, planned=3).failures == 1
    assert "job 1 (dataset.name=b) failed: " in capsys.readouterr().out


def test_jobs_of_an_earlier_sweep_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    jobs = make_sweep(folder, *"abcdefghijkl")
    os.utime(jobs[3] / ".hydra" / "overrides.yaml", (time.time() - 60,) * 2)
    assert jobs_of_sweep(folder) == [*jobs[:3], *jobs[4:]]  # 2 before 10
    assert labels_of(jobs[:2]) == {jobs[0]: " (dataset.name=a)", jobs[1]: " (dataset.name=b)"}
    assert labels_of(jobs[:1]) == {jobs[0]: " (seed=3, dataset.name=a)"}


def test_a_broken_launcher_and_a_stopped_sweep_still_say_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    make_sweep(folder, "a", "b", "killed")

    def leave(code: int) -> None:
        report = SweepReport()
        report._folder, report._distance, report._planned = folder, "cosine", 4
        SweepReport.current = report
        sys.exit(code)

    for code, text in (
        (1, "1 job was never started"),
        (130, "stopped: 2 of 4 embeddings are in"),
    ):
        monkeypatch.setattr("t2v_lightning.cli.run._run_with_hydra", lambda code=code: leave(code))
        with pytest.raises(SystemExit) as leaving:
            main()
        assert leaving.value.code == code
        assert text in capsys.readouterr().out


@pytest.mark.parametrize("key", ["dataset", "dataset.name"])
def test_the_command_line_takes_the_place_of_an_experiments_list(key: str) -> None:
    hydra = {
        "overrides": {"task": ["experiment=tour", f"{key}=digits,faces", "seed=1"]},
        "sweeper": {"params": {"dataset.name": "digits,photos,medical", "seed": "1,2", "probe.name": "a,b"}},
    }
    config = OmegaConf.create({"hydra": hydra})
    OmegaConf.set_readonly(config, True)
    _prefer_command_line(config)
    assert config.hydra.sweeper.params == {"probe.name": "a,b"}
    assert OmegaConf.is_readonly(config)


def test_both_methods_in_one_sweep_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(monkeypatch, "task2vec=montecarlo,variational", *TINY) == 1
    assert "embeddings of two methods cannot be compared" in " ".join(capsys.readouterr().out.split())
    assert not list(Path().glob("**/*.safetensors"))


# --- several processes ---------------------------------------------------------------------------------------


def command(*words: str, folder: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def end(process: "subprocess.Popen[str]", seconds: float = 600.0) -> str:
    """What a command has shown once it has ended; one that hangs is told to stop, with all it started, and fails."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.terminate()  # which it sends on
        raise AssertionError(f"the command hung:\n{process.communicate(timeout=60)[0][-3000:]}") from None


@pytest.mark.slow
def test_ranks_of_a_sweep_share_its_folders_and_give_the_embeddings_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = [*TINY, "trainer.accelerator=cpu", "dataset.name=digits_low,digit,textures"]
    two = command(
        str(ROOT / "train.py"), "-m", *sweep, "trainer=ddp", "trainer.devices=2",
        'hydra.sweep.dir="two ranks/${now:%H-%M-%S-%f}"', folder=tmp_path,
    )  # fmt: skip
    shown = end(two)
    assert two.returncode == 1, shown
    assert shown.count("GLOBAL_RANK: 1, MEMBER: 2/2") == 2, "two jobs of two ranks"
    assert "job 1 (dataset.name=digit) failed: got dataset 'digit'" in shown
    (folder,) = (tmp_path / "two ranks").iterdir()
    assert len(list(folder.glob("*/.hydra"))) == 3
    for task in ("digits_low", "textures"):  # a log of each rank
        assert len(list(folder_of(folder, task).glob("*.log"))) == 2
    assert train(monkeypatch, *sweep) == 1
    for task in ("digits_low", "textures"):
        together, alone = (
            Embedding.load(folder_of(sweep, task) / "embedding.safetensors")
            for sweep in (folder, tmp_path / "multirun" / "montecarlo")
        )
        assert np.linalg.norm(together.fisher - alone.fisher) < 1e-4 * alone.norm


@pytest.mark.slow
def test_ranks_that_torchrun_starts_go_through_a_sweep_together(tmp_path: Path) -> None:
    process = command(
        "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(ROOT / "train.py"), "-m", *TINY,
        "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "dataset.name=digits_low,textures",
        folder=tmp_path,
    )  # fmt: skip
    shown = end(process)
    assert process.returncode == 0, shown
    assert shown.count("2 of 2 embeddings") == 1
    folder = tmp_path / "multirun" / "montecarlo"
    for task in ("digits_low", "textures"):
        Embedding.load(folder_of(folder, task) / "embedding.safetensors")


def test_a_long_path_stays_whole_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    path = "/home/somebody/with-a-long-name/outputs/digits"
    say(f"the embedding and its logs are in {path}")
    assert capsys.readouterr().out == f"the embedding and its logs are in\n{path}\n"
