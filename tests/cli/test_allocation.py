"""Freed memory is kept by the command line only, not by the library."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from t2v_lightning.cli import allocation

SCRIPT = """
import resource, runpy, sys
keep_freed_memory = runpy.run_path(sys.argv[1])["keep_freed_memory"]
if sys.argv[2] == "keep":
    keep_freed_memory()
length = 2**26
b"x" * length
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    b"x" * length
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str, **environment: str) -> int:
    """Page faults of five blocks of 64 MiB, one after the other, in a process of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT, allocation.__file__, mode]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=kept | environment)
    return int(result.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_blocks_of_a_program_reuse_pages() -> None:
    without = faults("leave")
    assert without > 100  # 5 * 2**14 of 4 KiB, or as many huge ones as hold them
    assert faults("keep") < without / 3


def test_wishes_of_the_environment_stay() -> None:
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="100000") > 100


def test_a_glibc_that_refuses_the_threshold_gets_the_highest_that_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keeping only what is below its own threshold, which would no longer grow, is worse than nothing."""
    taken: dict[int, int] = {}

    def mallopt(option: int, value: int) -> int:
        if option == -3 and value > 2**25:
            return 0
        taken[option] = value
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    allocation.keep_freed_memory()
    assert taken == {-3: 2**25, -1: 2**31 - 1}
