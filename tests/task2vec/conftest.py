"""Real processes, which take long to start, work for the tests of several files."""

from pathlib import Path

import pytest
from runs import run_script


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all that one pair of processes has made for `test_distributed` and for `test_callback`."""
    import test_callback
    import test_distributed

    made = tmp_path_factory.mktemp("two")
    run_script(test_distributed.SCRIPT + test_callback.SCRIPT, made)
    return made
