"""A fit of two processes with two workers each, killed again and again."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"


@pytest.mark.slow
def test_a_fit_that_is_killed_and_resumed_many_times_never_hangs() -> None:
    command = [sys.executable, BENCHMARK, "--kills", "5", "--processes", "2", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    assert "5 kills, no run hung, the embedding the same to the last bit" in done.stdout
