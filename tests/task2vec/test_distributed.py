"""Several processes give the embedding of one. Each case starts real processes and counts them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_probe import small_probe, striped

from t2v_lightning import Embedding, Task2Vec

SCRIPT = """
import sys
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from small_probe import small_probe, striped
from t2v_lightning import Task2Vec
module = Task2Vec(small_probe(), head="lbfgs", {options})
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", precision="64-true", logger=False,
                  enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(module, DataLoader(striped({images}, min(3, {images})), batch_size=4))
assert torch.distributed.get_world_size() == 2
module.embedding.save({folder!r} + f"/rank{{trainer.global_rank}}.safetensors")
if trainer.global_rank == 0:  # what one process does for itself must not wait for the other
    alone = Task2Vec(small_probe(), head="lbfgs", {options})
    alone = alone.embed(striped({images}, min(3, {images})), batch_size=8, progress=False)
    alone.save({folder!r} + "/alone.safetensors")
"""


def run_two(folder: Path, images: int, options: str) -> list[Embedding]:
    script = folder / "fit.py"
    script.write_text(
        SCRIPT.format(
            tests=str(Path(__file__).parents[1]), images=images, folder=str(folder), options=options
        )
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [Embedding.load(folder / f"{name}.safetensors") for name in ("rank0", "rank1", "alone")]


@pytest.mark.parametrize(("images", "options"), [(15, "sampling='exact'"), (2, "sampling='sign'")], ids=str)
def test_two_processes_give_the_embedding_of_one(tmp_path: Path, images: int, options: str) -> None:
    """An odd number of images, and fewer images than a batch on each process."""
    alone = Task2Vec(small_probe(), head="lbfgs", sampling=options.split("'")[1]).embed(  # type: ignore[arg-type]
        striped(images, min(3, images)), progress=False
    )
    for together in run_two(tmp_path, images, options):
        assert together.meta["samples"] == images
        np.testing.assert_allclose(together.fisher, alone.fisher, rtol=1e-6)
        assert together.stderr is not None
        assert alone.stderr is not None
        np.testing.assert_allclose(together.stderr, alone.stderr, rtol=1e-6, atol=1e-9 * alone.norm)
