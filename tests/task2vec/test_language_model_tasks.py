"""Tasks of sequences under the likelihood of the next token, with the head that a language model came with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import filter_means, sequence_fishers
from pytorch_lightning import LightningDataModule, Trainer
from runs import KillAfter, Killed
from small_language_models import VOCABULARY, Backbone, padded, probe
from torch import Tensor
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec, embed
from t2v_lightning.callbacks.checkpoint import BatchCheckpoint
from t2v_lightning.embedding.summary import summarise
from t2v_lightning.phases import HeadOptions
from t2v_lightning.probes.text_network import TextBackbone

QUICK = HeadOptions(lr=0.1, epochs=2, num_samples=12, batch_size=4)
OPTIONS: dict[str, Any] = {"likelihood": "next_token", "batch_size": 4, "progress": False}


def texts(n: int = 10) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, VOCABULARY, (2 + number % 5,), generator=generator) for number in range(n)]


def task(length: int = 6) -> Any:
    """Pairs of a sequence and a label that does not matter."""
    x = padded(texts(), length)
    return [({name: ids[n] for name, ids in x.items()}, "no label") for n in range(len(texts()))]


def whole(network: Any) -> Any:
    """A probe as the oracle takes it."""
    return lambda ids: network.head(network.backbone(ids))


def test_the_embedding_is_that_of_brute_force() -> None:
    module = Task2Vec(probe(), likelihood="next_token", sampling="exact")
    embedding = module.embed(task(), batch_size=4, progress=False)
    assert list(embedding.layers) == ["places", "mixed", "out"]
    network = module.probe.requires_grad_()
    for layer, where in embedding.layers.items():
        weight = network.backbone.get_parameter(f"{layer}.weight")
        total = sum(sequence_fishers(whole(network), texts(), weight), torch.zeros_like(weight))
        expected = filter_means(total / 10, int(layer != "places"))
        np.testing.assert_allclose(embedding.fisher[where], expected.detach(), rtol=1e-9, atol=1e-15)


def test_the_loss_of_the_head_is_that_of_its_tokens() -> None:
    embedding, network = embed(task(), probe(), **OPTIONS), probe()
    losses, right, counts = [], [], torch.zeros(VOCABULARY, dtype=torch.float64)
    for ids in texts():
        with torch.no_grad():
            p = whole(network)(ids[None])[0, :-1].softmax(1)
        losses.append(-p[torch.arange(len(ids) - 1), ids[1:]].log().mean())
        right.append((p.argmax(1) == ids[1:]).double().mean())
        counts += torch.bincount(ids[1:], minlength=VOCABULARY) / (len(ids) - 1)
    head, share = embedding.meta["head"], counts / 10
    assert head["method"] == "keep"
    assert head["loss"] == pytest.approx(float(torch.stack(losses).mean()))
    assert head["accuracy"] == pytest.approx(float(torch.stack(right).mean()))
    assert head["constant_loss"] == pytest.approx(-float((share * share.clamp_min(1e-300).log()).sum()))
    summary = str(summarise(embedding))
    assert "right tokens" in summary
    assert "| texts |" in summary


def test_padding_batches_and_labels_change_nothing() -> None:
    expected = embed(task(), probe(), **OPTIONS)
    got = embed([(x, 3) for x, _ in task(9)], probe(), **OPTIONS | {"batch_size": 3})
    np.testing.assert_allclose(got.fisher, expected.fisher, rtol=1e-9, atol=1e-15)
    assert got.meta["head"]["loss"] == pytest.approx(expected.meta["head"]["loss"])


def fit(folder: Path, kill: int | None = None, data: Any = None, **options: Any) -> Task2Vec:
    """By a Trainer that goes on where it was killed before."""
    module = Task2Vec(**{"probe": probe(), "likelihood": "next_token", **options})
    trainer = Trainer(
        accelerator="cpu", precision="64-true", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[BatchCheckpoint(folder, every_n_batches=1), *([] if kill is None else [KillAfter(kill)])],
    )  # fmt: skip
    trainer.fit(module, DataLoader(task(), batch_size=2) if data is None else data, ckpt_path="last")
    return module


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
@pytest.mark.parametrize("options", [{}, {"head": QUICK}, {"head": QUICK, "features_budget": 0.0}], ids=str)
@pytest.mark.parametrize("kill", [2, 7])
def test_a_trainer_that_was_killed_gives_the_embedding_of_the_plain_loop(
    kill: int, options: dict[str, Any], tmp_path: Path
) -> None:
    in_memory = {name: value for name, value in options.items() if name != "features_budget"}
    expected = embed(task(), probe(), **OPTIONS | {"batch_size": 2} | in_memory)
    with pytest.raises(Killed):
        fit(tmp_path, kill, **options)
    module = fit(tmp_path, **options)
    assert isinstance(module.embedding, Embedding)
    assert np.array_equal(module.embedding.fisher, expected.fisher)
    assert module.embedding.meta["head"] == expected.meta["head"]


class Sequences(LightningDataModule):
    """Of a user, which says what it is for once it is set up."""

    def setup(self, stage: str) -> None:
        self.likelihood = "next_token"

    def train_dataloader(self) -> Any:
        return DataLoader(task(), batch_size=4)


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
def test_without_a_likelihood_that_of_the_datamodule_decides_about_the_head(tmp_path: Path) -> None:
    expected = embed(task(), probe(), **OPTIONS)
    for found in (
        embed(Sequences(), probe(), progress=False),
        fit(tmp_path, data=Sequences(), likelihood=None).embedding,
    ):
        assert isinstance(found, Embedding)
        assert found.meta["likelihood"] == "next_token"
        assert found.meta["head"] == expected.meta["head"]
        np.testing.assert_array_equal(found.fisher, expected.fisher)


def test_a_probe_with_a_vector_for_each_token_is_for_the_next_one() -> None:
    expected, network = embed(task(), probe(), **OPTIONS), probe()
    every = ProbeNetwork(TextBackbone(network.backbone, "none"), network.head, None, None, "gpt")
    found = embed(task(), every, batch_size=4, progress=False)
    assert found.meta["likelihood"] == "next_token"
    assert found.meta["head"] == expected.meta["head"]
    np.testing.assert_array_equal(found.fisher, expected.fisher)
    with pytest.raises(ValueError, match="got likelihood='softmax' for a probe made with pooling='none'"):
        embed(task(), every, likelihood="softmax", progress=False)


@pytest.mark.parametrize("options", [{"head": "lbfgs"}, {"method": "variational"}], ids=str)
def test_another_head_or_method_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"goes with method='montecarlo' and one of the heads keep, adam, bias"
    ):
        Task2Vec(probe(), likelihood="next_token", **options)


def test_a_backbone_without_a_vector_for_each_token_is_refused() -> None:
    class Mean(Backbone):
        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
            return self.hidden(input_ids, attention_mask).mean(1)

    transform: Any = None
    network = ProbeNetwork(Mean(), torch.nn.Linear(4, VOCABULARY), None, transform, "mean").double()
    with pytest.raises(ValueError, match=r"a vector for each token, \[N, T, P\].*got \[4, 4\]"):
        embed(task(), network, **OPTIONS)


def test_other_texts_to_test_with_are_refused() -> None:
    with pytest.raises(ValueError, match="by their labels, which likelihood='next_token' has none of"):
        embed(task(), probe(), test=task(), **OPTIONS)


@pytest.mark.parametrize("head", ["adam", "bias"])
def test_a_fitted_head_leaves_the_table_as_it_was_and_predicts_better(head: Any) -> None:
    module = Task2Vec(
        probe(), likelihood="next_token", head=HeadOptions(head, lr=0.1, epochs=3, num_samples=30)
    )
    found = module.embed(task(), batch_size=4, progress=False)
    kept = embed(task(), probe(), **OPTIONS)
    assert list(found.layers) == list(kept.layers) == ["places", "mixed", "out"]
    assert found.meta["head"]["loss"] < kept.meta["head"]["loss"]
    assert torch.equal(module.probe.backbone.get_parameter("tokens.weight"), probe().head.weight)
    assert not np.allclose(found.fisher, kept.fisher, rtol=1e-3)
    other = embed(
        [(x, 3) for x, _ in task(9)], probe(), head=module.options.head, **OPTIONS | {"batch_size": 3}
    )
    np.testing.assert_allclose(found.fisher, other.fisher, rtol=1e-6)


@pytest.mark.parametrize("head", ["keep", "adam"])
def test_a_token_table_that_counts_does_so_once_by_its_use_at_the_input(head: Any) -> None:
    module = Task2Vec(
        probe(), likelihood="next_token", sampling="exact", token_table=True,
        head=HeadOptions(head, lr=0.1, epochs=1, num_samples=10),
    )  # fmt: skip
    embedding = module.embed(task(), batch_size=4, progress=False)
    assert list(embedding.layers) == ["tokens", "places", "mixed", "out"]
    assert embedding.meta["token_table"] is True
    network = module.probe.requires_grad_()
    table = network.backbone.get_parameter("tokens.weight")
    assert network.head.weight is not table
    total = sum(sequence_fishers(whole(network), texts(), table), torch.zeros_like(table))
    expected = filter_means(total / 10, 0)
    np.testing.assert_allclose(
        embedding.fisher[embedding.layers["tokens"]], expected.detach(), rtol=1e-9, atol=1e-15
    )


def test_the_bias_is_no_head_of_labelled_tasks() -> None:
    with pytest.raises(ValueError, match=r"head='bias' is for the output layer of a language model"):
        Task2Vec(probe(), head="bias").embed(task(), progress=False)
