"""FilterwiseFisher: sums, standard errors and groups against NumPy, and the behaviour of a torchmetrics metric."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from t2v_lightning import FilterwiseFisher
from t2v_lightning.functional.distances.jackknife import jackknife_variance, leave_one_out
from t2v_lightning.functional.fisher_sums import GROUPS, FisherEstimate


def samples(n: int = 200, size: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Values [n, size] with correlated entries, weights [n] of very different size, indices [n]."""
    values = torch.rand(n, 1).double() * torch.rand(n, size).double() ** 4
    return values, torch.rand(n).double() ** 3 + 1e-3, torch.randperm(10 * n)[:n]


def filled(
    values: Tensor, weights: Tensor | None, index: Tensor | None, batch: int = 1000
) -> FilterwiseFisher:
    metric = FilterwiseFisher(values.shape[1])
    for start in range(0, len(values), batch):
        part = slice(start, start + batch)
        metric.update(
            values[part], None if weights is None else weights[part], None if index is None else index[part]
        )
    return metric


def close(a: FisherEstimate, b: FisherEstimate) -> None:
    for name, x, y in zip(FisherEstimate._fields, a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-300, msg=name)


def test_mean_and_standard_error_by_their_formulas() -> None:
    values, weights, index = samples()
    estimate = filled(values, weights, index).compute()
    v, w = values.numpy(), weights.numpy()
    mean = np.average(v, axis=0, weights=w)
    stderr = np.sqrt((w[:, None] ** 2 * (v - mean) ** 2).sum(0)) / w.sum()
    np.testing.assert_allclose(estimate.fisher, mean, rtol=1e-13)
    np.testing.assert_allclose(estimate.stderr, stderr, rtol=1e-10)
    assert estimate.samples == 200
    assert estimate.relative_stderr == pytest.approx(np.linalg.norm(stderr) / np.linalg.norm(mean))
    assert {x.dtype for x in estimate[:4]} == {torch.float64}


def test_standard_error_is_that_of_independent_samples() -> None:
    """Equal weights: the population deviation over the square root of N."""
    values = samples()[0]
    estimate = filled(values, None, None).compute()
    np.testing.assert_allclose(estimate.stderr, values.numpy().std(0) / np.sqrt(200), rtol=1e-10)


def test_the_stated_error_is_the_error_made() -> None:
    """Over many repetitions the estimate strays from the truth as far as it says."""
    torch.manual_seed(3)
    errors, stated = [], []
    for _ in range(300):
        values = torch.rand(100, 3).double() ** 2  # mean 1/3
        estimate = filled(values, None, None).compute()
        errors.append((estimate.fisher - 1 / 3) ** 2)
        stated.append(estimate.stderr**2)
    ratio = torch.stack(errors).mean() / torch.stack(stated).mean()
    assert 0.8 < float(ratio) < 1.25


def test_groups_hold_every_sample_once_and_are_even() -> None:
    values, weights, index = samples(2000)
    estimate = filled(values, weights, index).compute()
    assert estimate.group_sums.shape == (GROUPS, 5) == (16, 5)
    torch.testing.assert_close(estimate.group_sums.sum(0) / weights.sum(), estimate.fisher)
    torch.testing.assert_close(estimate.group_weights.sum(), weights.sum())
    counts = filled(values, None, index).compute().group_weights
    assert counts.sum() == 2000
    assert bool(((counts - 125).abs() < 5 * np.sqrt(125)).all())


def test_a_samples_group_depends_on_its_index_alone() -> None:
    one = torch.ones(1, 1)
    for index in (0, 5, 123456):
        alone = filled(one, None, torch.tensor([index])).compute().group_weights
        others = torch.arange(40)[torch.arange(40) != index]
        among = filled(torch.ones(len(others), 1), None, others)
        before = among.compute().group_weights
        among.update(one, None, torch.tensor([index]))
        assert torch.equal(among.compute().group_weights - before, alone)


def test_the_jackknife_over_groups_agrees_with_the_standard_error() -> None:
    values, _, index = samples(4000, 50)
    estimate = filled(values, None, index).compute()
    means, ratios = leave_one_out(estimate.group_sums, estimate.group_weights)
    variance = jackknife_variance(estimate.fisher, means, ratios)
    assert float(variance.mean() / estimate.stderr.square().mean()) == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("batch", [1, 7, 64, 199])
def test_how_samples_come_in_batches_does_not_matter(batch: int) -> None:
    values, weights, index = samples()
    weights[::5] = 0
    whole = filled(values, weights, index).compute()
    close(filled(values, weights, index, batch).compute(), whole)
    order = torch.randperm(200)
    close(filled(values[order], weights[order], index[order], batch).compute(), whole)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_samples_without_index_are_numbered_as_they_come(batch: int) -> None:
    """Also those of weight 0 and those that came through `forward`."""
    values, weights, _ = samples()
    weights[::3] = 0
    whole = filled(values, weights, torch.arange(200)).compute()
    close(filled(values, weights, None, batch).compute(), whole)
    called = FilterwiseFisher(5)
    for part in torch.arange(200).split(batch):
        if float(weights[part].sum()) > 0:
            called(values[part], weights[part])
        else:
            called.update(values[part], weights[part])
    close(called.compute(), whole)


def test_padding_of_weight_zero_counts_for_nothing_whatever_it_holds() -> None:
    values, weights, index = samples()
    padding = torch.tensor([[float("nan")] * 5, [float("inf")] * 5, [1e300] * 5]).double()
    padded = filled(
        torch.cat([values, padding]),
        torch.cat([weights, torch.zeros(3)]),
        torch.cat([index, torch.tensor([1, 2, 3])]),
    ).compute()
    close(padded, filled(values, weights, index).compute())
    assert padded.samples == 200


def test_scaling_all_weights_changes_the_group_sums_alone() -> None:
    values, weights, index = samples()
    one, seven = filled(values, weights, index).compute(), filled(values, 7 * weights, index).compute()
    torch.testing.assert_close(one.fisher, seven.fisher)
    torch.testing.assert_close(one.stderr, seven.stderr)
    torch.testing.assert_close(7 * one.group_sums, seven.group_sums)


def test_equal_values_have_no_error_and_no_nan() -> None:
    estimate = filled(torch.full((50, 3), 0.1), samples(50)[1], None).compute()
    assert float(estimate.stderr.max()) < 1e-9
    assert bool((estimate.stderr >= 0).all())
    zeros = filled(torch.zeros(5, 3), None, None).compute()
    assert zeros.relative_stderr == 0


def test_small_values_in_float32_keep_their_digits() -> None:
    values = torch.rand(1000, 4) * 1e-30
    estimate = filled(values, None, None).compute()
    np.testing.assert_allclose(estimate.fisher, values.double().mean(0), rtol=1e-12)
    assert float(estimate.stderr.min()) > 0


# --- manners of a metric -------------------------------------------------------------------------------------


def test_reset_forgets_everything() -> None:
    values, weights, index = samples()
    metric = filled(values, weights, index)
    metric.reset()
    with pytest.raises(ValueError, match="no sample of positive weight"):
        metric.estimate()
    metric.update(values, weights, index)
    close(metric.compute(), filled(values, weights, index).compute())


def test_it_may_be_reset_in_inference_mode_and_go_on_outside() -> None:
    """As a metric of a user's module is after the Trainer's validation."""
    values, weights, index = samples()
    metric = filled(values, weights, index)
    with torch.inference_mode():
        metric.reset()
        metric.update(values[:50], weights[:50], index[:50])
    metric.update(values[50:100], weights[50:100], index[50:100])
    metric(values[100:], weights[100:], index[100:])
    close(metric.compute(), filled(values, weights, index, batch=50).compute())


def test_sums_of_two_processes_add_up() -> None:
    values, weights, index = samples()
    first, second = (filled(values[p], weights[p], index[p]) for p in (slice(0, 80), slice(80, 200)))
    first.merge_state(second)
    close(first.compute(), filled(values, weights, index).compute())


def test_it_can_be_copied_pickled_and_saved() -> None:
    values, weights, index = samples()
    metric = filled(values, weights, index)
    expected = metric.compute()
    close(pickle.loads(pickle.dumps(metric)).compute(), expected)
    close(copy.deepcopy(metric).compute(), expected)
    metric.persistent(True)
    loaded = FilterwiseFisher(5)
    loaded.persistent(True)
    loaded.load_state_dict(metric.state_dict())
    close(loaded.estimate(), expected)


def test_compute_may_come_at_any_time_and_its_answer_stays() -> None:
    values, weights, index = samples()
    metric = filled(values[:100], weights[:100], index[:100])
    early = metric.compute()
    kept = FisherEstimate(*(x.clone() for x in early))
    metric.update(values[100:], weights[100:], index[100:])
    close(metric.compute(), filled(values, weights, index).compute())
    close(early, kept)


def test_forward_gives_the_estimate_of_the_batch() -> None:
    values, weights, index = samples()
    metric = filled(values[:150], weights[:150], index[:150])
    batch = metric(values[150:], weights[150:], index[150:])
    close(batch, filled(values[150:], weights[150:], index[150:]).compute())
    close(metric.compute(), filled(values, weights, index).compute())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_its_sums_stay_in_float64_when_the_module_around_it_is_converted(dtype: torch.dtype) -> None:
    values, weights, index = samples()
    holder = torch.nn.Module()
    holder.metric = FilterwiseFisher(5)
    holder.half().float().bfloat16().to(dtype).to("cpu", dtype)
    metric = holder.metric
    assert isinstance(metric, FilterwiseFisher)
    metric.update(values, weights, index)
    close(metric.compute(), filled(values, weights, index).compute())


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 5)])
def test_values_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"values must have shape \[N, 5\]; got"):
        FilterwiseFisher(5).update(torch.ones(shape))


def test_weights_and_index_must_be_one_number_a_sample() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(4,\); got \(3,\)"):
        FilterwiseFisher(5).update(torch.ones(4, 5), torch.ones(3))
    with pytest.raises(ValueError, match=r"must have shape \(4,\); got \(4,\) and \(4, 1\)"):
        FilterwiseFisher(5).update(torch.ones(4, 5), None, torch.ones(4, 1).long())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_name_their_samples(bad: float) -> None:
    values = torch.ones(4, 5)
    values[2, 3] = bad
    metric = FilterwiseFisher(5)
    with pytest.raises(ValueError, match=r"sample\(s\) \[17\] are not finite"):
        metric.update(values, None, torch.tensor([3, 9, 17, 4]))
    with pytest.raises(ValueError, match="no sample"):
        metric.estimate()  # nothing of the bad batch went in


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_weights_must_be_finite_and_not_negative(bad: float) -> None:
    with pytest.raises(ValueError, match="weights must be finite numbers of 0 or more"):
        FilterwiseFisher(5).update(torch.ones(2, 5), torch.tensor([1.0, bad]))


def test_an_empty_batch_is_nothing() -> None:
    values, weights, index = samples()
    metric = filled(values, weights, index)
    metric.update(values[:0], weights[:0], index[:0])
    close(metric.compute(), filled(values, weights, index).compute())


def test_nothing_added_is_an_error() -> None:
    metric = FilterwiseFisher(5)
    metric.update(torch.ones(2, 5), torch.zeros(2))
    with pytest.raises(ValueError, match="no sample of positive weight was added"):
        metric.compute()


@pytest.mark.parametrize("size", [0, -1])
def test_there_is_at_least_one_filter(size: int) -> None:
    with pytest.raises(ValueError, match=f"1 or more; got {size}"):
        FilterwiseFisher(size)


def test_a_network_of_one_filter_has_a_vector_of_one_entry() -> None:
    metric = FilterwiseFisher(size=1)
    values = torch.tensor([[1.0], [3.0]])
    for estimate in (metric(values), metric.compute(), metric.estimate()):
        assert torch.equal(estimate.fisher, torch.tensor([2.0], dtype=torch.float64))
        assert estimate.stderr.shape == (1,)


# --- a network -----------------------------------------------------------------------------------------------


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 4)).double()


IMAGES = torch.randn(7, 1, 5, 5, generator=torch.Generator().manual_seed(1)).double()


def test_it_measures_a_network_by_batches_of_images() -> None:
    """Against automatic differentiation of each log-probability of each image."""
    network = small_network()
    metric = FilterwiseFisher(network)
    for images in IMAGES.split(3):
        metric.update(images)
    weight, expected = network[0].weight, torch.zeros(3, dtype=torch.float64)
    for image in IMAGES:
        logits = network(image[None])[0].log_softmax(0)
        for k in range(4):
            (gradient,) = torch.autograd.grad(logits[k], weight, retain_graph=True)
            expected += logits[k].exp().detach() * gradient.square().mean((1, 2, 3)) / len(IMAGES)
    torch.testing.assert_close(metric.compute().fisher, expected)
    assert metric.layers == {"0": slice(0, 3)}
    assert metric.compute().samples == 7


@pytest.mark.parametrize("batch", [2, 7])
def test_random_vectors_of_an_image_do_not_depend_on_its_batch(batch: int) -> None:
    whole, parts = (FilterwiseFisher(small_network(), sampling="sign", seed=3) for _ in range(2))
    whole.update(IMAGES)
    for images in IMAGES.split(batch):
        parts(images)
    close(parts.compute(), whole.compute())
    other = FilterwiseFisher(small_network(), sampling="sign", seed=4)
    other.update(IMAGES)
    assert not torch.equal(other.compute().fisher, whole.compute().fisher)


def test_the_network_is_no_part_of_the_metric_and_may_change() -> None:
    network = small_network()
    metric = FilterwiseFisher(network, sampling="empirical")
    assert list(metric.parameters()) == list(metric.modules())[1:] == []
    with pytest.raises(ValueError, match="no sample of positive weight"):
        metric.compute()
    labels = torch.arange(7) % 4
    before = metric(IMAGES, targets=labels).fisher
    network[0].weight.data.mul_(2)
    metric.reset()
    metric.update(IMAGES, targets=labels)
    assert not torch.equal(metric.compute().fisher, before)


def test_what_is_neither_a_network_nor_a_number_of_filters() -> None:
    with pytest.raises(TypeError, match=r"a network, or the number of filters D; got str"):
        FilterwiseFisher("resnet34")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sampling"):
        FilterwiseFisher(small_network(), sampling="all")  # type: ignore[arg-type]
