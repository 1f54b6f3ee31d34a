"""Two processes give the embedding of one. One pair of real processes makes the fits of all cases in turn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import run_script
from small_probe import small_probe, striped

from t2v_lightning import Embedding, Task2Vec

HEAD = {"head": "lbfgs"}
HELD_OUT = 7  # of which the second process has fewer, and a third batch that is padding only
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "an odd number of images": (15, {"sampling": "exact"}),
    "fewer images than a batch": (2, {"sampling": "sign"}),
    "calibrated, with wrong labels": (15, {"sampling": "sign", "head": "calibrated"}),
    # an odd number of draws in an epoch, so that the last batch holds padding
    "variational": (15, {"method": "variational", "num_samples": 45, "epochs": 2, "update_norm": True}),
}

SCRIPT = """
import sys
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader
torch.set_num_threads(1)
sys.path[:0] = [{tests!r}, {tests!r} + "/task2vec"]
from small_probe import small_probe
from test_distributed import CASES, HEAD, held_out, images_of, several_labels
from t2v_lightning import Task2Vec
for name, (images, options) in CASES.items():
    module = Task2Vec(small_probe(), **HEAD | options)
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", precision="64-true", logger=False,
                      enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(module, DataLoader(images_of(name), batch_size=4))
    trainer.test(module, DataLoader(held_out(min(3, images)), batch_size=2), verbose=False)
    assert torch.distributed.get_world_size() == 2
    module.embedding.save({folder!r} + f"/{{name}} rank{{trainer.global_rank}}.safetensors")
    if trainer.global_rank == 0:  # what one process does for itself must not wait for the other
        alone = Task2Vec(small_probe(), **HEAD | options)
        test = held_out(min(3, images))
        alone = alone.embed(images_of(name), batch_size=8, test=test, progress=False)
        alone.save({folder!r} + f"/{{name}} alone.safetensors")
module = Task2Vec(small_probe(), likelihood="bernoulli", head="lbfgs")
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", precision="64-true", logger=False,
                  enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(module, DataLoader(several_labels(15), batch_size=4))
for images in (7, 1):
    trainer.test(module, DataLoader(several_labels(images), batch_size=2), verbose=False)
    module.embedding.save({folder!r} + f"/{{images}} with labels rank{{trainer.global_rank}}.safetensors")
shares = trainer.predict(module, DataLoader(several_labels(7), batch_size=2))
torch.save([batch["index"] for batch in shares], {folder!r} + f"/predicted{{trainer.global_rank}}.pt")
"""


def images_of(case: str) -> Any:
    """Of which a head can be as sure as it likes, but for the case with wrong labels."""
    images, classes, wrong = CASES[case][0], min(3, CASES[case][0]), case.endswith("wrong labels")
    pairs = enumerate(striped(images, classes))
    return [(image, (label + (wrong and n % 4 == 0)) % classes) for n, (image, label) in pairs]


def held_out(classes: int) -> Any:
    """Other images of the task, most of which the head takes for another class than they are labelled with."""
    return [
        (image, (label + (n % 3 > 0)) % classes)
        for n, (image, label) in enumerate(striped(HELD_OUT, classes))
    ]


def several_labels(images: int) -> Any:
    return [
        (x, torch.tensor([x.mean() > 0.1, x[0, 0, 0] > 0, x[0, 3, 3] > 0]).double())
        for x, _ in striped(max(images, 3))[:images]
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("two")
    run_script(SCRIPT, made)
    return made


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_embedding_of_one(folder: Path, case: str) -> None:
    """With the doubled batch, on which the variational method depends."""
    images, options = CASES[case]
    alone = Task2Vec(small_probe(), **HEAD | options).embed(
        images_of(case), batch_size=8, test=held_out(min(3, images)), progress=False
    )
    for name in ("rank0", "rank1", "alone"):
        together = Embedding.load(folder / f"{case} {name}.safetensors")
        np.testing.assert_allclose(together.fisher, alone.fisher, rtol=1e-6)
        np.testing.assert_allclose(together.scale, alone.scale, rtol=1e-6)
        assert together.mean_features is not None
        assert alone.mean_features is not None
        np.testing.assert_allclose(together.mean_features, alone.mean_features, rtol=1e-6)
        assert together.meta["test"] == pytest.approx(alone.meta["test"], rel=1e-6)
        assert (together.meta["test"]["images"], together.meta["test"]["accuracy"] < 1) == (HELD_OUT, True)
        if case.startswith("calibrated"):
            assert together.meta["head"]["sharpness"] == pytest.approx(alone.meta["head"]["sharpness"])
            assert together.meta["head"]["sharpness"] < 0.9
        if case == "variational":
            loss = alone.meta["variational"]["loss"]
            assert together.meta["variational"]["loss"] == pytest.approx(loss)
        else:
            assert together.meta["samples"] == images
            assert together.stderr is not None
            assert alone.stderr is not None
            np.testing.assert_allclose(together.stderr, alone.stderr, rtol=1e-6, atol=1e-9 * alone.norm)


@pytest.mark.parametrize("images", [7, 1])
def test_a_metric_that_keeps_all_images_is_that_of_one_process(folder: Path, images: int) -> None:
    """Also where a process has none."""
    module = Task2Vec(small_probe(), likelihood="bernoulli", head="lbfgs")
    alone = module.embed(several_labels(15), test=several_labels(images), progress=False)
    for rank in (0, 1):
        together = Embedding.load(folder / f"{images} with labels rank{rank}.safetensors")
        assert together.meta["test"] == pytest.approx(alone.meta["test"], rel=1e-6)


def test_each_process_predicts_its_share(folder: Path) -> None:
    shares = [torch.cat(torch.load(folder / f"predicted{rank}.pt")).tolist() for rank in (0, 1)]
    assert shares == [[0, 2, 4, 6], [1, 3, 5]]


ONE_OFF = """
import sys
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader
torch.set_num_threads(1)
sys.path[:0] = [{tests!r}]
from small_probe import small_probe, striped
from t2v_lightning import Task2Vec

class OneOff(list):
    targets = [number % 3 for number in range(30)]

images = [image for image, _ in striped(30)]
labels = [label + (number == {item}) for number, label in enumerate(OneOff.targets)]
data = DataLoader(OneOff(zip(images, labels)), batch_size=4)
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", precision="64-true", logger=False,
                  enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(Task2Vec(small_probe(), head="lbfgs"), data)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "item"), [(0, 22), (1, 25)])
def test_an_item_that_carries_another_label_ends_both_processes(rank: int, item: int, tmp_path: Path) -> None:
    """The one that reads it says so, and the other does not wait for it."""
    script = ONE_OFF.replace("{item}", str(item))
    code, said = run_script(script, tmp_path, check=False)
    assert code != 0
    assert (
        f"[rank{rank}]: ValueError: item {item} of the dataset carries the label 2, but 1 was found" in said
    )
    assert "Make them agree, or give a dataset without that list" in said
