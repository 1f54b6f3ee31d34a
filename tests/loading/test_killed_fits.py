"""Fits of two processes, killed and resumed."""

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


@pytest.mark.slow
def test_a_calibrated_head_survives_a_kill_of_its_two_processes() -> None:
    """While it is fitted, and when the outputs of the images have been found without them."""
    command = [sys.executable, BENCHMARK, "--only", "calibrated", "--processes", "2", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 kills, 2 embeddings the same to the last bit" in done.stdout
