"""Experts that are run on the new task: which, what their errors change, and how sure that is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from library_examples import Array, World, animals, bare
from PIL import Image
from torch import Tensor, nn

from t2v_lightning import Embedding, ProbeNetwork
from t2v_lightning.data.dataset import TaskDataset
from t2v_lightning.data.task import Task
from t2v_lightning.library import TaskLibrary
from t2v_lightning.library.conditioning import conditioned
from t2v_lightning.library.measure import Images
from t2v_lightning.library.short_list import LabelledFeatures, error_of, promising, try_experts
from t2v_lightning.library.trying import features_of


def samples(seed: int = 0, count: int = 400, spread: Any = 4.0) -> Array:
    rng = np.random.default_rng(seed)
    return np.asarray(20 + rng.normal(size=(count, 1)) * 10 + rng.normal(size=(count, 6)) * spread)


def test_predictions_move_as_normal_variables_whose_measurements_share_an_offset() -> None:
    drawn, measured = samples(spread=[1, 2, 3, 4, 5, 6]), np.array([12, np.nan, 25, 22, np.nan, 18.0])
    predicted, stderrs = drawn.mean(0), np.array([2, np.nan, 3, 4, np.nan, 2.0])
    tried = np.flatnonzero(~np.isnan(measured))
    beside_the_mean = drawn - drawn.mean(1, keepdims=True)
    variances = beside_the_mean[:, tried].var(0)
    prior = np.diag(variances + variances.mean()) / 2
    noise = np.diag(stderrs[tried] ** 2) / 2 + 1e8  # any offset
    moved = prior @ np.linalg.inv(prior + noise) @ (measured - predicted)[tried]
    found, _ = conditioned(predicted, drawn, measured, stderrs)
    np.testing.assert_allclose(found[tried], predicted[tried] + moved, atol=1e-5)
    np.testing.assert_array_equal(found[[1, 4]], predicted[[1, 4]])
    np.testing.assert_allclose(found, conditioned(predicted, drawn, measured + 30, stderrs)[0])


def test_samples_hold_the_truth_as_often_as_they_say() -> None:
    """Half of the variance of measured errors is common to the experts, besides an offset."""
    rng, held = np.random.default_rng(1), []
    for seed in range(200):
        truth = samples(seed + 1000, 1)[0]
        measured = truth + 7 + np.sqrt(4.5) * (rng.normal() + rng.normal(size=6))
        measured[4:] = np.nan
        _, after = conditioned(np.full(6, 20.0), samples(seed), measured, np.full(6, 3.0), seed)
        differences = after[:, :4] - after[:, :4].mean(1, keepdims=True)
        low, high = np.quantile(differences, (0.05, 0.95), axis=0)
        held.append((low <= truth[:4] - truth[:4].mean()) & (truth[:4] - truth[:4].mean() <= high))
    assert 0.86 < np.mean(held) < 0.94


def test_one_measured_error_or_none_says_nothing() -> None:
    drawn, measured = samples(), np.full(6, np.nan)
    for number in range(2):
        measured[0] = [np.nan, 3.0][number]
        found, after = conditioned(drawn.mean(0), drawn, measured, np.ones(6))
        np.testing.assert_allclose(found, drawn.mean(0))
        assert np.isfinite(after).all()


def test_the_error_of_features_and_its_standard_error() -> None:
    labels = np.arange(40) % 2
    apart, alike = labels[:, None] * 9.0, np.zeros((40, 1))
    assert error_of(apart, labels) == (0.0, pytest.approx(100 * np.sqrt(1 / 42 * 41 / 42 / 40)))
    error, stderr = error_of(alike, labels)
    assert error == pytest.approx(50)
    assert stderr == pytest.approx(100 * np.sqrt(0.25 / 40), rel=0.01)


def seen(
    errors: Array, asked: list[str], gone: tuple[str, ...] = ()
) -> Callable[[str], LabelledFeatures | None]:
    """One feature of two classes, so far apart that a head is wrong as often as an expert is."""

    def features(name: str) -> LabelledFeatures | None:
        asked.append(name)
        if name in gone:
            return None
        labels = np.arange(200) % 2
        wrong = np.arange(200) // 2 < errors[int(name.removeprefix("expert "))]
        return (np.where(wrong, 1 - labels, labels)[:, None] * 1.0, labels)

    return features


def worth_trying(library: TaskLibrary, embedding: Embedding) -> list[str]:
    desk = library.desk()
    return list(desk.worth_trying(embedding, "library", desk.experts, 0))


def test_each_expert_of_a_list_is_the_one_that_brings_the_expected_best_down_most() -> None:
    drawn = np.add(samples(spread=[1, 9, 2, 3, 8, 9.5]), [0, 3, 0.5, 1, 4, 8])
    found = list(promising(drawn))
    assert sorted(found) == list(range(6))
    for place, expert in enumerate(found):
        expected = {other: float(drawn[:, [*found[:place], other]].min(1).mean()) for other in found[place:]}
        assert expected[expert] == pytest.approx(min(expected.values()))
    assert found != np.argsort(drawn.mean(0)).tolist()


def test_where_no_task_can_be_left_out_the_best_predicted_are_tried_first() -> None:
    """One task, or experts that have one result each: nothing says how wrong advice is."""
    rng = np.random.default_rng(0)
    errors = {f"expert {n}": float(error) for n, error in enumerate(rng.uniform(0, 100, 12))}
    one = TaskLibrary()
    one.add(bare([4.0, 1.0]), errors, name="known")
    apart = TaskLibrary()
    for n, (expert, error) in enumerate(errors.items()):
        apart.add(bare([4.0, 1.0 + n]), {expert: error}, name=f"known {n}", family=f"family {n}")
    for library in (one, apart):
        new = bare([3.0, 2.0])
        assert worth_trying(library, new) == list(library.recommend(new, k=12).experts)
    assert worth_trying(one, bare([3.0, 2.0])) == sorted(errors, key=errors.__getitem__)


def test_experts_that_bring_nothing_come_in_the_order_of_their_means() -> None:
    assert list(promising(np.array([[9.0, 1.0, 7.0, 8.0]] * 3))) == [1, 2, 3, 0]


def test_a_short_list_is_run_and_beats_the_advice_alone() -> None:
    lost: dict[str, list[float]] = {"library": [], "short_list": []}
    for seed in range(3):
        world = World(seed)
        library, centres = world.library(filled=0.9)
        for centre in centres:
            embedding, errors = world.task(centre, "new", "")
            asked: list[str] = []
            plain = library.recommend(embedding, k=12)
            found = library.recommend(embedding, "short_list", 12, features=seen(errors, asked), run=4)
            assert asked == worth_trying(library, embedding)[:4]
            assert list(found.tried) == asked
            assert found.method == "library and 4 tried"
            assert (found.intervals[:, 0] <= found.intervals[:, 1]).all()
            for name, one in (("library", plain), ("short_list", found)):
                first = int(one.experts[0].removeprefix("expert "))
                lost[name].append(float(errors[first] - errors.min()))
    assert np.mean(lost["short_list"]) < np.mean(lost["library"])


def test_experts_that_cannot_be_run_make_room_for_the_next() -> None:
    world = World(0)
    library, centres = world.library()
    embedding, errors = world.task(centres[0], "new", "")
    order = worth_trying(library, embedding)
    assert sorted(order) == sorted(library.recommend(embedding, k=12).experts)
    features = seen(errors, [], gone=(order[0], order[2]))
    found = library.recommend(embedding, "short_list", features=features, run=3)
    assert list(found.tried) == [order[1], order[3], order[4]]
    few = library.recommend(embedding, "short_list", features=features, run=3, experts=order[:2])
    assert list(few.tried) == [order[1]]
    assert "was 1 of the experts" in few.reason
    with pytest.raises(ValueError, match=r"none of the experts can be run: .*; say how to make them"):
        library.recommend(embedding, "short_list", features=features, experts=[order[0]])
    assert try_experts(["a"], lambda name: ([[0.0], [1.0]] * 2, [0, 1] * 2), 1)["a"][0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "short_list"}, "a short list, and nothing else, needs a function"),
        ({"method": "short_list", "features": {"vit": ([[1.0]], [0])}}, "needs a function"),
        ({"features": lambda name: None}, "got method='library' with features="),
        ({"method": "short_list", "features": lambda name: None, "run": 1}, "run is 1; a short list has 2"),
        ({"method": "short_list", "features": lambda name: None}, "none of the experts can be run"),
    ],
)
def test_short_lists_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        animals().recommend(bare([4.0, 1.0]), **options)


# --- on images ------------------------------------------------------------------------------------------------------


class Means(nn.Module):
    """Features are the means of the colours; it may fail."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.fc, self.broken = nn.Linear(3, 2), broken

    def forward(self, images: Tensor) -> Tensor:
        if self.broken:
            raise RuntimeError("out of\nmemory")
        out: Tensor = self.fc(images.mean((2, 3)))
        return out


def probe(broken: bool = False) -> ProbeNetwork:
    return ProbeNetwork.from_module(
        Means(broken),
        input_size=(3, 8, 8),
        transform=lambda image: torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / 255,
    )


@pytest.fixture
def images() -> Images:
    labels = np.arange(30) % 2
    items = [(int(level), 0, 0) for level in 50 + 100 * labels + np.arange(30)]
    task = Task(items, labels, ("dark", "light"))
    return Images("levels", TaskDataset(task, lambda colour: Image.new("RGB", (8, 8), colour)), None)


def test_features_of_images(images: Images) -> None:
    features = features_of(images, {"all": probe(), "made": probe}, most=12)
    first, second = features("all"), features("made")
    assert first is not None
    assert second is not None
    values, labels = np.asarray(first[0]), np.asarray(first[1])
    assert values.shape == (12, 3)
    assert np.unique(labels).tolist() == [0, 1]
    levels = (values[:, 0] * 255).round().astype(int) - 50 - 100 * labels
    assert (levels % 2 == labels).all()  # each row is that of its image
    assert error_of(*first)[0] == 0
    np.testing.assert_array_equal(labels, second[1])


def test_experts_that_fail_on_images_are_told_of(images: Images) -> None:
    told: list[tuple[str, str]] = []
    features = features_of(
        images, {"broken": partial(probe, True)}, cannot_run=lambda name, reason: told.append((name, reason))
    )
    assert features("broken") is None
    assert features("nonesuch") is None
    assert told[0][0] == "broken"
    assert "out of memory" in told[0][1]
    assert told[1][1].startswith("unknown probe 'nonesuch'")
    with pytest.raises(ValueError, match="out of"):
        features_of(images, {"broken": partial(probe, True)})("broken")
