"""The head's part in the standard error, against a jackknife in NumPy."""

import numpy as np
import torch
from torch import Tensor

from t2v_lightning.functional.fisher_sums import GROUPS, Sums, add_samples, estimate, group_of, new_sums


def samples(n: int = 150) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(n, 4, generator=generator).double() ** 3
    weights = torch.rand(n, generator=generator).double() + 0.1
    ratios = torch.exp(
        0.5 * torch.randn(1, GROUPS, generator=generator) + 0.1 * torch.randn(n, GROUPS, generator=generator)
    )
    return values, weights, torch.arange(7, 7 + n), ratios.double()


def added(values: Tensor, weights: Tensor, index: Tensor, ratios: Tensor | None, batch: int = 1000) -> Sums:
    sums = new_sums(values.shape[1], refitted=True)
    for part in torch.arange(len(values)).split(batch):
        sums = add_samples(
            sums, values[part], weights[part], index[part], None if ratios is None else ratios[part]
        )
    return sums


def jackknife(values: Tensor, weights: Tensor, index: Tensor, ratios: Tensor) -> float:
    """Sum over entries of Busing's variance of the mean, whose values change where a group is left out."""
    v, w, group = values.numpy(), weights.numpy(), group_of(index).numpy()
    full, present = np.average(v, axis=0, weights=w), np.unique(group)
    h = np.array([w.sum() / w[group == g].sum() for g in present])
    deleted = np.array(
        [
            np.average(ratios[group != g, g, None] * v[group != g], axis=0, weights=w[group != g])
            for g in present
        ]
    )
    centre = len(h) * full - ((1 - 1 / h)[:, None] * deleted).sum(0)
    pseudo = h[:, None] * full - (h - 1)[:, None] * deleted
    return float(((pseudo - centre) ** 2 / (h - 1)[:, None]).mean(0).sum())


def test_the_error_grows_as_the_jackknife_of_refitted_heads_does() -> None:
    values, weights, index, ratios = samples()
    plain = estimate(add_samples(new_sums(4), values, weights, index))
    found = estimate(added(values, weights, index, ratios))
    before = jackknife(values, weights, index, torch.ones_like(ratios))
    after = jackknife(values, weights, index, ratios)
    assert after > 1.5 * before
    torch.testing.assert_close(found.stderr, plain.stderr * (after / before) ** 0.5, rtol=1e-10, atol=0)
    for name in ("fisher", "group_sums", "group_weights"):
        assert torch.equal(getattr(found, name), getattr(plain, name))


def test_heads_that_do_not_change_leave_the_error_as_it_is() -> None:
    values, weights, index, _ = samples()
    plain = estimate(add_samples(new_sums(4), values, weights, index))
    for ratios in (None, torch.ones(len(values), GROUPS)):
        found = estimate(added(values, weights, index, ratios))
        torch.testing.assert_close(found.stderr, plain.stderr, rtol=1e-12, atol=0)


def test_batches_do_not_matter() -> None:
    parts = samples()
    a, b = estimate(added(*parts)), estimate(added(*parts, batch=7))
    torch.testing.assert_close(a.stderr, b.stderr, rtol=1e-12, atol=0)


def test_images_of_one_group_have_an_error_too() -> None:
    """Of which no jackknife knows anything."""
    values, weights, index, ratios = samples()
    one = group_of(index) == group_of(index)[0]
    found = estimate(added(values[one], weights[one], index[one], ratios[one]))
    plain = estimate(add_samples(new_sums(4), values[one], weights[one], index[one]))
    assert torch.equal(found.stderr, plain.stderr)
    assert bool((found.stderr > 0).all())
