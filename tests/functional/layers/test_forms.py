"""Every form of a layer's squared gradients is right wherever it can be used, not only where it is fastest."""

from typing import Any

import pytest
import torch
from oracles import relative_error
from small_networks import Flat, check
from test_layers import CONVOLUTIONS
from torch import nn

from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.layers import conv, cost_model
from t2v_lightning.functional.layers.cost_model import gram_is_cheaper
from t2v_lightning.functional.layers.matrix import gram_diagonal, matrix_squares, product_rows

FORMS: dict[str, dict[str, Any]] = {
    "direct": {"GRAM_ADVANTAGE": 0.0},
    "Gram": {"GRAM_ADVANTAGE": float("inf")},
    "Gram in small blocks": {"GRAM_ADVANTAGE": float("inf"), "CPU_BLOCK": 1},
    "direct in small blocks": {"GRAM_ADVANTAGE": 0.0, "CPU_BLOCK": 1},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FORMS[form].items():
        monkeypatch.setattr(cost_model, name, value)
    kind, options, shape = CONVOLUTIONS[case]
    x = torch.randn(3, *shape, dtype=torch.float64)
    check(Flat(kind(4, 8, **options), nn.Tanh(), x=x), x)


@pytest.mark.parametrize("form", ["shifted", "narrow", "whole"])
@pytest.mark.parametrize("case", [name for name in CONVOLUTIONS if "2d depthwise" in name])
def test_depthwise_convolutions(case: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv, "depthwise_form", lambda *_: form)
    monkeypatch.setattr(cost_model, "CPU_BLOCK", 1)
    kind, options, shape = CONVOLUTIONS[case]
    x = torch.randn(3, *shape, dtype=torch.float64)
    check(Flat(kind(4, 4, **options), nn.Tanh(), x=x), x)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 2, 9, 40])
def test_linear_on_sequences(length: int, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FORMS[form].items():
        monkeypatch.setattr(cost_model, name, value)
    x = torch.randn(3, length, 4, dtype=torch.float64)
    check(Flat(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), x=x), x)


@pytest.mark.parametrize("form", ["direct", "Gram"])
def test_float32_keeps_its_digits_where_sums_cancel(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs of one sign and gradients that sum to zero over the positions, as a normalisation behind makes them."""
    monkeypatch.setattr(cost_model, "GRAM_ADVANTAGE", FORMS[form]["GRAM_ADVANTAGE"])
    x = 3 + torch.randn(4, 6, 9, 9, dtype=torch.float64)
    model = Flat(nn.Conv2d(6, 8, 3), nn.InstanceNorm2d(8), nn.Tanh(), nn.Conv2d(8, 8, 1), nn.Tanh(), x=x)
    expected = filterwise_fisher(model, x)
    got = filterwise_fisher(model.float(), x.float())
    for layer in expected:
        assert relative_error(got[layer], expected[layer]) < 1e-5
        assert bool((got[layer] >= 0).all())


def test_gram_of_a_matrix_is_as_exact_as_the_gradient() -> None:
    """In float32, with inputs far from zero and output gradients that sum to zero over the positions."""
    generator = torch.Generator().manual_seed(0)
    a = 30 + torch.randn(3, 40, 512, generator=generator)
    g = torch.randn(3, 40, 256, generator=generator)
    g -= g.mean(1, keepdim=True)
    assert gram_is_cheaper(40**2 * (512 + 256), 40 * 512 * 256)
    exact = (g.double().mT @ a.double()).square().mean(2)
    plain = relative_error((g.mT @ a).square().mean(2), exact)
    assert relative_error(matrix_squares(a, g), exact) < 2 * plain


@pytest.mark.parametrize("positions", [63, 96, 97, 128, 200])
def test_blocks_of_a_symmetric_matrix_make_up_the_whole(positions: int) -> None:
    a, g = torch.randn(2, positions, 300).double(), torch.randn(2, positions, 200).double()
    exact = (g.mT @ (a @ (a.mT @ g))).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(gram_diagonal(product_rows(a), g), exact)


def test_gradients_of_padded_positions_do_not_drown_the_others() -> None:
    """A cosine attention's keys have gradients of 1e12 where padding makes them zero; those meet inputs of zero."""
    generator = torch.Generator().manual_seed(0)
    a = 3 + torch.randn(3, 40, 512, generator=generator)
    g = torch.randn(3, 40, 256, generator=generator)
    a[:, 30:] = 0
    g[:, 30:] *= 1e12
    a[2] = 0
    assert gram_is_cheaper(40**2 * (512 + 256), 40 * 512 * 256)
    got, exact = matrix_squares(a, g), (g.double().mT @ a.double()).square().mean(2)
    assert relative_error(got[:2], exact[:2]) < 1e-5
    assert not got[2].any()
