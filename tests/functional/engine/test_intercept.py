"""Parameters that take no gradients for a while."""

import pytest
from torch import nn

from t2v_lightning.functional.engine.intercept import frozen


def test_frozen_restores_each_flag_also_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(KeyError), frozen(model):  # noqa: PT012
        assert not any(p.requires_grad for p in model.parameters())
        raise KeyError
    assert [p.requires_grad for p in model.parameters()] == flags == [True, False, True, True]
