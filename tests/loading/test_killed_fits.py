"""Fits of two processes, killed and resumed."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(
            ["--kills", "5", "--workers", "2"],
            "5 kills, no run hung, the embedding the same to the last bit",
            id="many times",
        ),
        # while it is fitted, and when the outputs of the images have been found without them
        pytest.param(
            ["--only", "calibrated", "--workers", "0"],
            "2 kills, 2 embeddings the same to the last bit",
            id="calibrated head",
        ),
    ],
)
def test_a_fit_that_is_killed_goes_on_to_the_same_embedding(options: list[str], said: str) -> None:
    command = [sys.executable, BENCHMARK, "--processes", "2", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
