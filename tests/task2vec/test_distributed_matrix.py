"""Several processes over methods, ranks, nodes, precisions and numbers of images, against one process.

Every case starts real processes, which say how many they were and which images each of them was given.
"""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_script import Run, start
from small_probe import small_probe, striped

from t2v_lightning import Embedding, Task2Vec

BATCH, DRAWS = 4, 25
METHODS: dict[str, dict[str, Any]] = {
    "montecarlo": {"sampling": "sign", "passes": 2},
    "variational": {"method": "variational", "num_samples": DRAWS},
}
LIMITS = {True: 1e-6, False: 1e-4}
"""Greatest relative difference to one process, by whether it computes in float64."""

pytestmark = pytest.mark.slow


def alone(images: int, classes: int, double: bool, options: dict[str, Any], batch_size: int) -> Embedding:
    module = Task2Vec(small_probe(double=double), **({"head": "lbfgs"} | options))
    task = striped(images, classes, double=double)
    return module.embed(task, batch_size=batch_size, device="cpu", progress=False)


def together(runs: list[Run], processes: int) -> list[Embedding]:
    """The embedding of each rank, once all launches have ended well."""
    for run in runs:
        code, _, errors = run.end(180)
        assert code == 0, errors[-3000:]
    folder = runs[0].folder
    written = sorted(path.name for path in folder.glob("*.safetensors"))
    assert written == [f"rank{rank}of{processes}.safetensors" for rank in range(processes)]
    return [Embedding.load(folder / name) for name in written]


def visits(folder: Path, processes: int) -> dict[int, list[int]]:
    """Positions that were given to all ranks together, by epoch; checks that no two ranks were one process."""
    told = [json.loads((folder / f"visits{rank}.json").read_text()) for rank in range(processes)]
    assert len({each["process"] for each in told}) == processes
    epochs = told[0]["visits"].keys()
    assert all(each["visits"].keys() == epochs for each in told)
    return {int(epoch): sorted(p for each in told for p in each["visits"][epoch]) for epoch in epochs}


def check(
    runs: list[Run], processes: int, images: int, double: bool, options: dict[str, Any], classes: int = 3
) -> None:
    """All ranks have one embedding, that of a single process with a batch as large as all of theirs."""
    found = together(runs, processes)
    assert all(each == found[0] for each in found[1:])
    expected = alone(images, classes, double, options, BATCH * processes)
    assert found[0].meta["samples"] == expected.meta["samples"] == images
    for name in ("fisher", "scale"):
        one, other = getattr(found[0], name), getattr(expected, name)
        assert np.linalg.norm(one - other) <= LIMITS[double] * np.linalg.norm(other)
    if double:
        np.testing.assert_allclose(found[0].fisher, expected.fisher, rtol=1e-6)
    if expected.stderr is not None:
        assert found[0].stderr is not None
        difference = np.linalg.norm(found[0].stderr - expected.stderr)
        assert difference <= LIMITS[double] * np.linalg.norm(expected.fisher)

    given = visits(runs[0].folder, processes)
    padded = images + -images % processes
    assert given.pop(0) == list(range(padded)), "features"
    if options.get("method") == "variational":
        draws = range(2 * DRAWS)
        for epoch in (1, 2):
            real = [p // images for p in given.pop(epoch) if p < 2 * DRAWS * images]
            assert real == list(draws[:DRAWS] if epoch == 1 else draws[DRAWS:])
    else:
        assert given.pop(1) == list(range(padded)), "fisher"
    assert not given


@pytest.mark.parametrize("double", LIMITS, ids=["float64", "float32"])
@pytest.mark.parametrize("images", [23, 2], ids=lambda images: f"{images}images")
@pytest.mark.parametrize("processes", [2, 3], ids=lambda processes: f"{processes}ranks")
@pytest.mark.parametrize("method", METHODS)
def test_ranks_of_one_node(method: str, processes: int, images: int, double: bool, tmp_path: Path) -> None:
    """23 images leave 2 and 3 ranks uneven shares; 2 images leave one of 3 ranks nothing but padding."""
    classes = min(3, images)
    run = start(
        tmp_path, images=images, classes=classes, double=double, options=METHODS[method], batch_size=BATCH,
        devices=processes, strategy="ddp", checkpoint=False,
    )  # fmt: skip
    check([run], processes, images, double, METHODS[method], classes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def nodes(devices: int) -> list[dict[str, str]]:
    """Environments of two nodes, both of them this machine, without torchrun."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(2 * devices)}
    return [shared | {"NODE_RANK": str(rank)} for rank in range(2)]


@pytest.mark.parametrize("double", LIMITS, ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("method", "devices", "images"),
    [("montecarlo", 1, 23), ("montecarlo", 2, 3), ("variational", 1, 23), ("variational", 2, 23)],
)
def test_two_nodes(method: str, devices: int, images: int, double: bool, tmp_path: Path) -> None:
    """Two launches find each other by MASTER_ADDR, MASTER_PORT and NODE_RANK; 3 images are fewer than 4 ranks."""
    runs = [
        start(
            tmp_path, environment, images=images, double=double, options=METHODS[method], batch_size=BATCH,
            devices=devices, num_nodes=2, strategy="ddp", checkpoint=False,
        )
        for environment in nodes(devices)
    ]  # fmt: skip
    check(runs, 2 * devices, images, double, METHODS[method])


@pytest.mark.parametrize("processes", [2, 3])
def test_all_ranks_stop_at_the_same_batch(processes: int, tmp_path: Path) -> None:
    """`target_stderr` is reached by the sums of all ranks, where one process with all their images reaches it."""
    options = {"target_stderr": 0.15}
    run = start(
        tmp_path, images=151, options=options, batch_size=BATCH, devices=processes, strategy="ddp", checkpoint=False
    )  # fmt: skip
    found = together([run], processes)
    expected = alone(151, 3, True, options, BATCH * processes)
    assert 64 <= expected.meta["samples"] < 151
    assert [each.meta["samples"] for each in found] == [expected.meta["samples"]] * processes
    for each in found:
        np.testing.assert_allclose(each.fisher, expected.fisher, rtol=1e-6)
    assert len(visits(tmp_path, processes)[1]) == expected.meta["samples"]
