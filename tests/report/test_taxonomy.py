"""Taxonomic distances, and curves over neighbourhoods."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from report_examples import CROW, TAXA

from t2v_lightning.report.taxonomy import (
    chance,
    neighbourhood_curve,
    plot_neighbourhoods,
    taxonomic_distances,
)


def test_taxonomic_distances() -> None:
    shouting = {rank: name.upper() for rank, name in CROW.items()}
    found = taxonomic_distances([*TAXA, shouting])
    assert found[0].tolist() == [0, 1, 2, 3, 4, 0]
    assert found[2].tolist() == [2, 2, 0, 3, 4, 2]
    np.testing.assert_array_equal(found, found.T)


def test_a_rank_that_is_not_known_is_shared_with_nobody() -> None:
    classless = {"kingdom": "Animalia", "phylum": "Chordata"}
    nameless = {**classless, "class": ""}
    assert taxonomic_distances([classless, classless, nameless, nameless, {}])[2].tolist() == [2, 2, 0, 2, 4]


def test_curves_are_averages_over_the_nearest() -> None:
    """Against plain loops."""
    generator = np.random.default_rng(0)
    matrix = generator.random((12, 12))
    taxonomic = taxonomic_distances([TAXA[i % 5] for i in range(12)])
    expected = []
    for k in range(1, 12):
        means = []
        for i in range(12):
            others = sorted((j for j in range(12) if j != i), key=lambda j: matrix[i, j])
            means.append(sum(taxonomic[i, j] for j in others[:k]) / k)
        expected.append(sum(means) / 12)
    np.testing.assert_allclose(neighbourhood_curve(matrix, taxonomic), expected)
    # everybody is a neighbour at the end, whoever is near
    assert expected[-1] == pytest.approx(chance(taxonomic))
    best = neighbourhood_curve(taxonomic, taxonomic)
    assert (best <= np.array(expected) + 1e-12).all()


def test_chance_is_what_random_neighbours_have() -> None:
    generator = np.random.default_rng(0)
    taxonomic = taxonomic_distances([TAXA[i % 5] for i in range(12)])
    curves = [neighbourhood_curve(generator.random((12, 12)), taxonomic) for _ in range(400)]
    np.testing.assert_allclose(np.mean(curves, axis=0), chance(taxonomic), atol=0.05)


def test_the_figure_of_curves() -> None:
    figure = plot_neighbourhoods({"embedding": np.arange(4.0), "taxonomy": np.ones(4)}, 2.5)
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines] == ["embedding", "taxonomy", "chance"]
    assert np.asarray(ax.lines[0].get_xdata()).tolist() == [1, 2, 3, 4]
    assert np.asarray(ax.lines[2].get_ydata()).tolist() == [2.5, 2.5]
    assert to_rgb(ax.lines[0].get_color()) != to_rgb(ax.lines[1].get_color())
