"""The profile of embeddings over the layers of their probe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from t2v_lightning.embedding import Embedding
from t2v_lightning.plots import (
    plot_stage_profile,
)
from t2v_lightning.plots.profiles import stage_labels
from t2v_lightning.probes import get_probe


class TestStageProfile:
    layers = {  # noqa: RUF012
        "backbone.conv1": slice(0, 2),
        "backbone.layer1.0.conv": slice(2, 4),
        "backbone.layer1.1.conv": slice(4, 6),
        "backbone.layer2.0.conv": slice(6, 9),
    }

    def embedding(self, **options: Any) -> Embedding:
        return Embedding(np.arange(1, 10), np.ones(9), layers=self.layers, **options)

    def test_means_of_layers_by_stage(self) -> None:
        ax = plot_stage_profile([self.embedding(meta={"task_name": "digits"})]).axes[0]
        assert np.asarray(ax.lines[0].get_ydata()).tolist() == [1.5, 3.5, 5.5, 8.0]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["conv1", "layer1", "layer2"]
        assert ax.get_xticks().tolist() == [0, 1.5, 3]
        assert ax.get_legend() is None
        assert ax.get_title(loc="left") == "digits"

    def test_a_few_have_a_legend(self) -> None:
        ax = plot_stage_profile([self.embedding(), self.embedding()], ["digits", "dogs"]).axes[0]
        legend = ax.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["digits", "dogs"]

    def test_given_stages(self) -> None:
        stages = ("conv1", "bn1", "layer1.0", "layer1.1", "layer2")
        ax = plot_stage_profile([self.embedding()], stages=stages).axes[0]
        assert [label.get_text() for label in ax.get_xticklabels()] == [s for s in stages if s != "bn1"]

    def test_stages_are_those_of_the_probe(self) -> None:
        """Most of the layers of the built-in probe are in blocks, and that name would say nothing."""
        probe = get_probe("efficientnet_lite0", weights=None)
        layers = [name.rpartition(".")[0] for name in probe.stage_parameters(0)]
        assert stage_labels(layers) == stage_labels(layers, probe.stages)
        assert {"conv_stem", "blocks.0", "blocks.15", "conv_head"} <= set(stage_labels(layers))
        convolutions = [name for name in layers if "conv" in name]
        assert stage_labels(convolutions) == stage_labels(convolutions, probe.stages)

    def test_variational_layers_have_the_median(self) -> None:
        """A filter with almost no weights bears almost no noise: its precision says nothing of the others'."""
        fisher = np.array([1, 3, 2, 2, 5, 5, 7, 8, 1e8])
        embedding = Embedding(fisher, np.ones(9), layers=self.layers, meta={"method": "variational"})
        ax = plot_stage_profile([embedding]).axes[0]
        assert np.asarray(ax.lines[0].get_ydata()).tolist() == [2, 2, 5, 8]
        assert ax.get_ylabel() == "median precision of a filter's noise"
        assert plot_stage_profile([self.embedding()]).axes[0].get_ylabel() == "mean Fisher of a filter"

    def test_bands_of_two_standard_errors(self) -> None:
        ax = plot_stage_profile([self.embedding(stderr=np.full(9, 0.25))]).axes[0]
        path = ax.collections[0].get_paths()[0].vertices
        assert {1.0, 2.0} <= set(np.asarray(path)[:, 1].tolist())

    def test_what_cannot_be_drawn(self) -> None:
        with pytest.raises(ValueError, match="know their layers"):
            plot_stage_profile([Embedding([1.0], [1.0])])
        with pytest.raises(ValueError, match="know their layers"):
            plot_stage_profile([])
        other = Embedding(np.ones(9), np.ones(9), layers={"a": slice(0, 9)})
        with pytest.raises(ValueError, match="embeddings of one layout"):
            plot_stage_profile([self.embedding(), other])
        with pytest.raises(ValueError, match="names has 2 items"):
            plot_stage_profile([self.embedding()], ["a", "b"])

    def test_many_are_told_apart_by_family(self) -> None:
        embeddings = [self.embedding() for _ in range(20)]
        figure = plot_stage_profile(embeddings, families=["birds", "digits"] * 10, title="Profiles")
        legend = figure.axes[0].get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["birds", "digits"]
        assert len(figure.axes[0].lines) == 22
        alone = plot_stage_profile(embeddings).axes[0].get_legend()
        assert alone is not None
        assert [text.get_text() for text in alone.get_texts()] == ["median of 20 tasks"]
        with pytest.raises(ValueError, match="families has 1 items"):
            plot_stage_profile(embeddings, families=["birds"])

    @pytest.mark.parametrize("count", [1, 5, 50])
    def test_the_axis_keeps_most_of_the_figure(self, count: int) -> None:
        embeddings = [self.embedding(meta={"task_name": f"a task of some length, {i}"}) for i in range(count)]
        figure = plot_stage_profile(embeddings, title="Profiles")
        figure.draw_without_rendering()
        box = figure.axes[0].get_position()
        assert box.height > 0.6
        assert box.width > 0.4
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert 0 <= drawn.x0 <= drawn.x1 <= width
        assert 0 <= drawn.y0 <= drawn.y1 <= height
