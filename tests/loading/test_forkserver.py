"""Workers of a process that takes part in collectives, which is never forked."""

import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from t2v_lightning.loading import forkserver
from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.forkserver import CannotSend, Parcel, forking_may_hang
from t2v_lightning.loading.loader import LoaderOptions, PhaseLoader, Reader
from t2v_lightning.loading.sampler import ShardedSampler

ITEMS = 12


class Told(list[Any]):
    """Images that hold the number of the process that reads them, of its parent, and whether it sees a Ctrl-C."""

    def __getitem__(self, index: Any) -> Any:
        blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        numbers = [os.getpid(), os.getppid(), float(blocked)]
        return torch.tensor(numbers, dtype=torch.float64)[:, None, None], super().__getitem__(index)


class Unsent(Told):
    """A dataset that holds something which no other process can have."""

    def __init__(self, items: Any) -> None:
        super().__init__(items)
        self.opener = lambda path: path


def reader(items: Any, **options: Any) -> Reader:
    return Reader(IndexedDataset(items, torch.arange(len(items))), LoaderOptions(2, num_workers=2, **options))


def one_pass(reader: Reader) -> list[tuple[Tensor, Tensor]]:
    return list(PhaseLoader(reader, ShardedSampler(torch.arange(ITEMS), ITEMS, 2)))


def told(batches: Any) -> tuple[set[int], set[int], set[bool]]:
    """What `Told` says: numbers of processes, of their parents, and whether the signal is blocked."""
    rows = torch.cat([x[:, :, 0, 0] for x, _ in batches]).tolist()
    return {int(row[0]) for row in rows}, {int(row[1]) for row in rows}, {bool(row[2]) for row in rows}


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """This process as the only one of a group."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


# --- in a group of processes ---------------------------------------------------------------------------------


def test_workers_are_forked_from_this_process_only_outside_a_group() -> None:
    assert not forking_may_hang()
    pids, parents, _ = told(one_pass(reader(Told(range(ITEMS)))))
    assert len(pids) == 2
    assert parents == {os.getpid()}


@pytest.mark.usefixtures("group")
def test_a_server_forks_the_workers_of_a_group_and_they_never_see_a_ctrl_c() -> None:
    read = reader(Told(range(ITEMS)), persistent_workers=True)
    batches = one_pass(read)
    assert [at.tolist() for _, at in batches] == [[i, i + 1] for i in range(0, ITEMS, 2)]
    pids, parents, blocked = told(batches)
    assert len(pids) == 2
    assert len(parents) == 1
    assert os.getpid() not in pids | parents
    assert blocked == {True}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, []), "this process does see it"
    assert told(one_pass(read))[0] == pids, "the workers are persistent"
    left = iter(PhaseLoader(read, ShardedSampler(torch.arange(ITEMS), ITEMS, 2)))
    next(left)
    assert pids <= {process.pid for process in multiprocessing.active_children()}
    read.close()
    assert pids.isdisjoint({process.pid for process in multiprocessing.active_children()})


def number_of(worker: int) -> None:
    """Stands for a user's `worker_init_fn`."""
    Numbered.worker = worker


class Numbered(list[Any]):
    """Images full of the number of the worker that reads them; the last one is broken."""

    worker = -1

    def __getitem__(self, index: Any) -> Any:
        value = float("nan") if index == ITEMS - 1 else float(Numbered.worker)
        return torch.full((1, 1, 1), value), 0


@pytest.mark.usefixtures("group")
def test_the_users_worker_init_fn_runs_and_errors_keep_their_text() -> None:
    batches = iter(
        PhaseLoader(
            reader(Numbered(range(ITEMS)), worker_init_fn=number_of),
            ShardedSampler(torch.arange(ITEMS), ITEMS, 2),
        )
    )
    assert [next(batches)[0].flatten().tolist() for _ in range(4)] == [[0, 0], [1, 1], [0, 0], [1, 1]]
    with pytest.raises(ValueError, match=f"image {ITEMS - 1} of the dataset holds NaN"):
        list(batches)


@pytest.mark.usefixtures("group")
def test_the_users_own_way_of_starting_workers_wins() -> None:
    read = reader(Unsent(range(ITEMS)), multiprocessing_context="fork")
    _, parents, _ = told(one_pass(read))
    assert parents == {os.getpid()}


@pytest.mark.usefixtures("group")
def test_what_cannot_be_sent_is_read_without_workers_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read = reader(Unsent(range(ITEMS)), prefetch_factor=3, persistent_workers=True)
    for _ in range(2):
        assert told(one_pass(read))[0] == {os.getpid()}
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "is read without workers" in record.getMessage()
    assert "cannot be pickled" in record.getMessage()
    assert "lambda" in record.getMessage()


# --- what is sent --------------------------------------------------------------------------------------------


def plain(items: list[Any]) -> list[Any]:
    return items


def test_a_parcel_reads_what_the_dataset_holds() -> None:
    assert Parcel([3, 4, 5], plain, None).__getitems__([2, 0]) == [5, 3]  # type: ignore[arg-type]


class CountsPickles:
    """A part of a dataset that takes a megabyte, and counts how often one was pickled."""

    count = 0

    def __reduce__(self) -> Any:
        CountsPickles.count += 1
        return bytes, (bytes(2**20 + CountsPickles.count),)


def test_a_large_dataset_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "LARGEST_PICKLE", 3 * 2**20)
    with pytest.raises(CannotSend, match="holds more than 3 MB, of which each worker would need a copy"):
        Parcel([CountsPickles() for _ in range(100)], plain, None)  # type: ignore[arg-type]
    assert CountsPickles.count == 3


def test_a_large_tensor_is_not_copied_to_see_that_it_is_large() -> None:
    nothing = torch.empty(1).expand(2**40)  # one number
    Parcel([nothing], plain, None)  # type: ignore[arg-type]
    whole = torch.empty(2**31, dtype=torch.uint8)  # memory that is never touched
    started = time.monotonic()
    with pytest.raises(CannotSend, match="holds more than 256 MB"):
        Parcel([whole], plain, None)  # type: ignore[arg-type]
    assert time.monotonic() - started < 0.2


def test_the_main_module_is_what_it_was_after_a_start() -> None:
    main = sys.modules["__main__"]
    before = dict(vars(main))
    parcel = Parcel([1], plain, None)  # type: ignore[arg-type]
    assert not parcel.needs_main
    with parcel.start():
        assert main.__spec__ is None
        assert not hasattr(main, "__file__")
    assert vars(main) == before
    with contextlib.suppress(KeyError), parcel.start():
        raise KeyError
    assert vars(main) == before


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('if __name__ == "__main__":\n    run()\n', True),
        ("if '__main__' == __name__: run()\n", True),
        ("run()\n", False),
        ('# if __name__ == "__main__":\nrun()\n', False),
        ('def f():\n    if __name__ == "__main__":\n        run()\nf()\n', False),
        ("if this is no Python\n", False),
        (None, False),
    ],
    ids=["guard", "turned", "none", "comment", "within", "broken", "no file"],
)
def test_a_main_module_is_imported_only_if_that_runs_nothing(
    text: str | None, sent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = ModuleType("__main__")
    if text is not None:
        (tmp_path / "script.py").write_text(text)
        main.__file__ = str(tmp_path / "script.py")
    own = type("Own", (), {"__module__": "__main__"})
    main.Own = own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    if sent:
        assert Parcel([own()], plain, None).needs_main  # type: ignore[arg-type]
        return
    with pytest.raises(
        CannotSend, match=r"main module without `if __name__.*put its classes and functions into"
    ):
        Parcel([own()], plain, None)  # type: ignore[arg-type]


# --- scripts -------------------------------------------------------------------------------------------------

SCRIPT = """
import logging, os, sys, time
import torch
from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.loader import LoaderOptions, PhaseLoader, Reader
from t2v_lightning.loading.sampler import ShardedSampler

print("this file runs as", __name__, flush=True)

class Own(list):
    def __getitem__(self, index):
        return torch.full((1, 1, 1), os.getpid(), dtype=torch.float64), 0

def run(sleep):
    torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
    reader = Reader(IndexedDataset(Own(range(8)), torch.arange(8)), LoaderOptions(2, num_workers=2))
    batches = iter(PhaseLoader(reader, ShardedSampler(torch.arange(8), 8, 2)))
    first = int(next(batches)[0][0])
    print("here" if first == os.getpid() else "worker", flush=True)
    time.sleep(sleep)
    reader.close()
"""

GUARDED = f'{SCRIPT}\nif __name__ == "__main__":\n    run(0)\n'
UNGUARDED = f"{SCRIPT}\nrun(0)\n"


@pytest.mark.slow
@pytest.mark.parametrize("text", [GUARDED, UNGUARDED], ids=["guarded", "unguarded"])
def test_a_script_that_defines_the_dataset_itself(text: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "script.py", str(tmp_path / "store")],
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("this file runs as __main__") == 1
    if text is GUARDED:
        assert lines[-1] == "worker"
        assert "without workers" not in done.stderr
    else:
        assert lines == ["this file runs as __main__", "here"]
        assert "is read without workers" in done.stderr


@pytest.mark.slow
def test_a_dataset_that_is_given_on_the_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNGUARDED, str(tmp_path / "store")],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "here"


@pytest.mark.slow
def test_nothing_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f'{SCRIPT}\nif __name__ == "__main__":\n    run(600)\n')
    process = subprocess.Popen(
        [sys.executable, "script.py", str(tmp_path / "store")],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "worker":
            break
    assert len(members(process.pid)) >= 4, "the process, the server and two workers"
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while left := members(process.pid):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


def members(session: int) -> list[str]:
    """Processes of a session that have not ended."""
    listed = subprocess.run(["ps", "-eo", "sid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    return [row[2] for row in rows if row[0] == str(session) and not row[1].startswith("Z")]
