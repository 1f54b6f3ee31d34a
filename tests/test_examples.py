"""Every script of `examples` runs as it stands, and what it prints is true."""

import copy
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import network_fisher
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from t2v_lightning import ProbeNetwork, embed
from t2v_lightning.data.dataset import collate_images
from t2v_lightning.functional.distances import pdist

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


class Networks(Callback):
    """A copy of the network at the end of each epoch."""

    def __init__(self) -> None:
        self.at: dict[int, nn.Module] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = nn.Sequential(pl_module.features, pl_module.head)  # type: ignore[arg-type]
        self.at[trainer.current_epoch] = copy.deepcopy(network)


def check_fisher(main: Callable[..., Any]) -> str:
    """Against brute force in float64 on the same images; filters that count more are missed more."""
    got = main()
    images, _ = collate_images([got["images"][i] for i in range(len(got["images"]))])
    weights = torch.full((len(images),), 1 / len(images), dtype=torch.float64)
    network = copy.deepcopy(got["network"]).double().requires_grad_(True)
    expected = network_fisher(network, images.double(), ["0.weight", "2.weight"], weights=weights)
    vector = torch.cat(list(expected.values()))
    assert vector.shape == (48,)
    assert float((got["estimate"].fisher - vector).norm() / vector.norm()) < 1e-4
    assert int(got["estimate"].samples) == len(images)
    accuracy = got["accuracy"]
    assert accuracy["all"] > 0.9
    assert accuracy["all but 4 of most"] < accuracy["all but 4 of least"] <= accuracy["all"]
    return f"layer 0: Fisher information {vector[:16].sum():.3f}"


def check_drift(main: Callable[..., Any]) -> str:
    """Against `embed` with the network as it was at each epoch."""
    networks = Networks()
    got = main(networks)
    images = got["images"]
    items = [(collate_images([images[i]])[0][0], images.targets[i]) for i in range(len(images))]
    embeddings = {}
    for epoch, row in got["rows"].items():
        probe = ProbeNetwork.from_module(networks.at[epoch], input_size=(3, 8, 8))
        embeddings[epoch] = embed(items, probe, max_samples=200, head="lbfgs", progress=False)
        assert row["task2vec/norm"] == pytest.approx(embeddings[epoch].norm, rel=1e-4)
    assert list(embeddings) == [1, 3, 5, 7]
    assert "task2vec/drift" not in got["rows"][1]
    for before, epoch in ((1, 3), (3, 5), (5, 7)):
        distance = pdist([embeddings[before].fisher, embeddings[epoch].fisher])[0, 1]
        assert got["rows"][epoch]["task2vec/drift"] == pytest.approx(distance, rel=1e-3)
    assert got["rows"][7]["task2vec/drift"] < got["rows"][3]["task2vec/drift"] / 2
    return f"epoch 7: loss {got['rows'][7]['loss']:.4f}  task2vec/norm {embeddings[7].norm:.4f}"


def check_training(main: Callable[..., Any]) -> str:
    got = main()
    assert list(got["accuracy"]) == ["digits", "medical_tissue", "faces_turned"]
    for name, accuracy in got["accuracy"].items():
        assert accuracy > 0.9
        assert got["chance"][name] <= 0.5
    return f"digits: accuracy {got['accuracy']['digits']:.0%}, chance 10% (0, 1, 2"


def check_embeddings(main: Callable[..., Any]) -> str:
    """A Trainer with the datamodule and with the loader gives what `embed` gives for the same images."""
    got = main()
    expected = embed(got["low"], got["probe"], head="lbfgs", batch_size=25, progress=False)
    *both, high = got["embeddings"].values()
    assert len(both) == 2
    for embedding in both:
        assert embedding.meta["samples"] == len(got["low"]) == 62
        assert np.linalg.norm(embedding.fisher - expected.fisher) < 1e-4 * expected.norm
    distance = pdist([expected, high])[0, 1]
    assert distance > 0.1
    return f"norm {high.norm:.3f}, distance from the first {distance:.3f}"


def check_cli(main: Callable[..., Any]) -> str:
    """Options of all three reach what they are for."""
    got = main(
        ["--data.name=digits_low", "--model.max_samples=40", "--model.head=lbfgs", "--trainer.devices=1"]
    )
    embedding = got["embedding"]
    assert (embedding.meta["samples"], embedding.meta["task_name"]) == (40, "digits_low")
    assert (embedding.meta["probe"], embedding.meta["num_classes"]) == ("efficientnet_lite0", 5)
    return f"digits_low: {len(embedding)} entries, norm {embedding.norm:.3f}"


CHECKS: dict[str, Callable[[Callable[..., Any]], str]] = {
    "fisher_in_your_module": check_fisher,
    "drift_of_a_training": check_drift,
    "train_on_our_datamodules": check_training,
    "embed_your_datamodule": check_embeddings,
    "lightning_cli": check_cli,
}
"""By script: runs its `main`, holds the numbers against others, and gives what must be in its output."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_its_numbers_are_right(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if script.stem == "lightning_cli":
        pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse[signatures]")
    assert script.stem in CHECKS, f"write a check of what {script.name} prints"
    said = CHECKS[script.stem](runpy.run_path(str(script), run_name="example")["main"])
    assert said in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"


def test_they_are_short_and_the_pages_have_them_all() -> None:
    assert sorted(CHECKS) == [script.stem for script in SCRIPTS]
    folder, site = ((ROOT / page).read_text() for page in ("examples/README.md", "docs/examples.md"))
    for script in SCRIPTS:
        text = script.read_text()
        assert len(text.splitlines()) <= 80, script.name
        assert text.startswith('"""'), script.name
        assert 'if __name__ == "__main__":\n    main()\n' in text, script.name
        assert f"({script.name})" in folder
        assert f"../examples/{script.name}" in site
