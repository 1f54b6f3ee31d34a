"""Options of a Trainer that would change the result are refused, and others are not."""

from typing import Any

import pytest
from lightning_fabric.utilities.exceptions import MisconfigurationException
from small_fits import QUICK, quietly, task
from small_probe import small_probe
from torch.utils.data import DataLoader

from t2v_lightning import Task2Vec

REFUSED: dict[str, dict[str, Any]] = {
    "fast_dev_run": {"fast_dev_run": True},
    "max_steps": {"max_steps": 3},
    "limit_train_batches as a share": {"limit_train_batches": 0.5},
    "limit_train_batches as a number": {"limit_train_batches": 2},
    "limit_train_batches of one batch": {"limit_train_batches": 1},
    "overfit_batches": {"overfit_batches": 1},
    "gradient_clip_val": {"gradient_clip_val": 1.0},
    "accumulate_grad_batches": {"accumulate_grad_batches": 2},
}


@pytest.mark.parametrize("case", REFUSED)
def test_trainer_options_that_would_change_the_answer_are_refused(case: str) -> None:
    module = Task2Vec(small_probe(double=False), head=QUICK)
    name = case.split(" ")[0]
    # Lightning itself refuses first what it never allows together with manual optimisation
    with pytest.raises((ValueError, MisconfigurationException), match=rf"Trainer\({name}="):
        quietly(**REFUSED[case]).fit(module, DataLoader(task(double=False), batch_size=5))
    assert module.embedding is None


@pytest.mark.parametrize(
    "options", [{"gradient_clip_val": 0.0}, {"gradient_clip_val": 0}, {"overfit_batches": 0}], ids=str
)
def test_trainer_options_that_are_off_are_accepted(options: dict[str, Any]) -> None:
    module, plain = (Task2Vec(small_probe(double=False), head=QUICK) for _ in range(2))
    quietly(**options).fit(module, DataLoader(task(double=False), batch_size=5))
    quietly().fit(plain, DataLoader(task(double=False), batch_size=5))
    assert module.embedding == plain.embedding
