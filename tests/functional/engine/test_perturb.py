"""The other input that a network is traced with."""

from typing import Any

import pytest
import torch

from t2v_lightning.functional.engine.perturb import unlike


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (torch.tensor([[4, 7, 7]]), torch.tensor([[7, 4, 7]])),
        (torch.tensor([[0, 3]]) * 0 + 3, torch.tensor([[2, 2]])),
        (torch.tensor([[0, 0]]), torch.tensor([[1, 1]])),
        (torch.tensor([[True, False]]), torch.tensor([[False, True]])),
        (torch.tensor([[True, True]]), torch.tensor([[False, False]])),
        ((torch.tensor([[1, 2]]), torch.tensor([[True, False]])),
         (torch.tensor([[2, 1]]), torch.tensor([[True, False]]))),
    ],
    ids=str,
)  # fmt: skip
def test_what_an_unlike_input_looks_like(x: Any, expected: Any) -> None:
    torch.testing.assert_close(unlike(x), expected)


def test_floats_get_noise_of_their_own() -> None:
    """With equal noise on two inputs a network that takes their difference would not see any."""
    a, b = unlike((torch.zeros(1, 8), torch.zeros(1, 8)))
    assert not torch.equal(a, b)
    assert bool(a.any())
    assert bool(b.any())
