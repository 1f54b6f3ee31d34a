"""Tasks of texts: neither padding nor the other texts of a batch count, whichever way an embedding is computed."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import network_fisher, relative_error
from pytorch_lightning import Trainer
from runs import KillAfter, Killed, run_script
from small_probe import small_probe, striped
from small_texts import Alone, model, texts, tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec, embed
from t2v_lightning.callbacks.checkpoint import BatchCheckpoint
from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.distances import pdist
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.library import TaskLibrary

transformers = pytest.importorskip("transformers")

KEEP: dict[str, Any] = {"head": "keep", "sampling": "exact", "include": "weights", "progress": False}
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-12}


def probe(kind: str = "bert", **options: Any) -> ProbeNetwork:
    made = ProbeNetwork.from_module(model(kind), tokenizer=tokenizer(), name=kind, **options).double()
    made.reset_head(3, torch.Generator().manual_seed(1))
    return made


@pytest.fixture(scope="module")
def bert() -> ProbeNetwork:
    return probe()


def test_the_table_of_tokens_can_be_left_out_and_compares_only_with_its_like(bert: ProbeNetwork) -> None:
    whole, without = (embed(texts(6), bert, token_table=counted, **KEEP) for counted in (None, False))
    (table,) = set(whole.layers) - set(without.layers)
    assert table.endswith("word_embeddings")
    assert (whole.meta["token_table"], without.meta["token_table"]) == (True, False)
    for layer, entries in without.layers.items():
        np.testing.assert_allclose(without.fisher[entries], whole.fisher[whole.layers[layer]], rtol=1e-12)
    asked = embed(texts(6), bert, token_table=True, **KEEP)
    np.testing.assert_array_equal(asked.fisher, whole.fisher)
    with pytest.raises(ValueError, match=r"entries.*of different probes or layers cannot be compared"):
        pdist([whole, without])


class _Pooled(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).pooler_output.flatten(1)  # type: ignore[no-any-return]


def test_only_networks_for_texts_have_a_table_of_tokens(bert: ProbeNetwork) -> None:
    assert [name.split(".")[-2] for name in bert.token_tables] == ["word_embeddings"]
    late = embed(texts(6), bert, skip_layers=1, **KEEP)
    assert late.meta["token_table"] is False  # it is not among the layers
    assert small_probe().token_tables == ()
    assert "token_table" not in embed(striped(12), small_probe(), progress=False).meta
    images = transformers.ResNetModel(
        transformers.ResNetConfig(embedding_sizes=8, hidden_sizes=[8], depths=[1])
    )
    with pytest.raises(NotImplementedError):
        images.get_input_embeddings()
    assert ProbeNetwork.from_backbone(_Pooled(images), input_size=32).token_tables == ()


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        ("bert", "mean"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("bert", "cls"), ("llama", "last"))),
        *(pytest.param(kind, "mean", marks=pytest.mark.slow) for kind in ("roberta", "albert", "modernbert")),
    ],
)
def test_the_embedding_is_that_of_brute_force_without_padding(kind: str, pooling: Any) -> None:
    of_texts = probe(kind, pooling=pooling)
    items = texts(6)
    embedding = embed(items, of_texts, batch_size=4, **KEEP)
    samples = [of_texts.transform(text) for text, _ in items]
    network = Alone(copy.deepcopy(of_texts).requires_grad_(), samples)
    layers = list(embedding.layers)
    names = [f"network.backbone.{layer}.weight" for layer in layers]
    assert len(names) == sum(p.dim() > 1 for p in of_texts.backbone.parameters())
    expected = network_fisher(
        network, torch.arange(6), names, weights=torch.full((6,), 1 / 6, dtype=torch.float64)
    )
    rounding = 1e-6 if kind in ("llama", "modernbert") else 1e-9  # these go through float32 in places
    for layer, name in zip(layers, names, strict=True):
        found = embedding.fisher[embedding.layers[layer]]
        assert relative_error(torch.tensor(found), expected[name]) < rounding, layer


def padded(left: int, right: int, value: int) -> Callable[[list[Any]], Any]:
    """A collate function of the user's that pads, with more than is needed."""

    def collate(items: list[Any]) -> Any:
        longest = max(len(tokens["input_ids"]) for tokens, _ in items)

        def row(x: Any, fill: int) -> Any:
            return torch.nn.functional.pad(x, (left, right + longest - len(x)), value=fill)

        ids = torch.stack([row(tokens["input_ids"], value) for tokens, _ in items])
        mask = torch.stack([row(tokens["attention_mask"], 0) for tokens, _ in items])
        return {"input_ids": ids, "attention_mask": mask}, torch.tensor([label for _, label in items])

    return collate


def test_padding_batches_and_order_do_not_count(bert: ProbeNetwork) -> None:
    items = texts()
    expected = embed(items, bert, batch_size=12, **KEEP).fisher
    orders = {
        "one by one": (items, 1),
        "in another order": (items[::-1], 5),
        "rotated": (items[5:] + items[:5], 3),
    }
    for what, (others, size) in orders.items():
        found = embed(others, bert, batch_size=size, **KEEP).fisher
        np.testing.assert_allclose(found, expected, **CLOSE, err_msg=what)
    for left, right, value in [(0, 6, 0), (5, 0, 4), (3, 4, 7)]:
        loader: Any = DataLoader(items, 4, collate_fn=padded(left, right, value))  # type: ignore[arg-type]
        np.testing.assert_allclose(embed(loader, bert, **KEEP).fisher, expected, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "distilbert",
        "roberta",
        "albert",
        "deberta",
        "deberta-v2",
        "modernbert",
        "gpt2",
        "llama",
        "qwen2",
        "qwen3",
    ],
)
def test_padding_and_batches_do_not_count_for_any_architecture(kind: str) -> None:
    of_texts, items = probe(kind), texts(6)
    expected = embed(items, of_texts, batch_size=1, **KEEP).fisher
    assert expected.any()
    np.testing.assert_allclose(embed(items[::-1], of_texts, batch_size=6, **KEEP).fisher, expected, **CLOSE)
    loader: Any = DataLoader(items, 4, collate_fn=padded(3, 2, 1))  # type: ignore[arg-type]
    np.testing.assert_allclose(embed(loader, of_texts, **KEEP).fisher, expected, **CLOSE)


def test_token_ids_are_what_their_texts_are(bert: ProbeNetwork) -> None:
    """As lists, of a tokenised dataset of Hugging Face, and as tensors; other columns are left out."""
    items = texts()
    expected = embed(items, bert, batch_size=4, **KEEP).fisher
    tokens = [bert.transform(text) for text, _ in items]
    lists = [{name: ids.tolist() for name, ids in sample.items()} | {"labels": 1} for sample in tokens]
    longer = [
        {name: torch.nn.functional.pad(ids, (3, 30)) for name, ids in sample.items()} for sample in tokens
    ]
    for samples in (tokens, lists, longer, [{"input_ids": sample["input_ids"]} for sample in tokens]):
        pairs = [(sample, label) for sample, (_, label) in zip(samples, items, strict=True)]
        np.testing.assert_allclose(embed(pairs, bert, batch_size=4, **KEEP).fisher, expected, **CLOSE)


def test_pairs_of_texts(bert: ProbeNetwork) -> None:
    pairs = [((text, "ant bee"), label) for text, label in texts()]
    found = embed(pairs, bert, batch_size=5, **KEEP).fisher
    assert found.any()
    assert not np.allclose(found, embed(texts(), bert, batch_size=5, **KEEP).fisher)


@pytest.mark.parametrize("options", [{}, {"method": "variational", "num_samples": 24, "epochs": 1}], ids=str)
def test_a_trainer_gives_the_embedding_of_the_plain_loop(
    options: dict[str, Any], bert: ProbeNetwork, tmp_path: Path
) -> None:
    expected = embed(texts(), bert, head="lbfgs", batch_size=4, progress=False, **options)
    module = Task2Vec(bert, head="lbfgs", **options)
    trainer = Trainer(
        accelerator="cpu", precision="64-true", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, DataLoader(texts(), batch_size=4))  # type: ignore[arg-type]
    assert isinstance(module.embedding, Embedding)
    np.testing.assert_allclose(module.embedding.fisher, expected.fisher, rtol=1e-7)


def test_workers_and_batches_in_halves(bert: ProbeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = embed(texts(), bert, batch_size=8, **KEEP).fisher
    whole = PerSampleFisher.__call__

    def with_little_room(self: PerSampleFisher, x: Any, *rest: Any) -> Any:
        if len(x["input_ids"]) > 3:
            raise torch.OutOfMemoryError("no more")
        return whole(self, x, *rest)

    monkeypatch.setattr(PerSampleFisher, "__call__", with_little_room)
    np.testing.assert_allclose(
        embed(texts(), bert, batch_size=8, num_workers=1, **KEEP).fisher, expected, **CLOSE
    )


def test_token_ids_go_through_the_function_too(bert: ProbeNetwork) -> None:
    sample = {name: ids[None] for name, ids in bert.transform("ant bee cat").items()}
    longer = {name: torch.nn.functional.pad(ids, (0, 4)) for name, ids in sample.items()}
    for (_, one), (_, other) in zip(
        filterwise_fisher(bert, sample).items(), filterwise_fisher(bert, longer).items(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-14)


TWO_PROCESSES = """
import sys
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader
torch.set_num_threads(1)
sys.path[:0] = [{tests!r}, {tests!r} + "/task2vec"]
from small_texts import texts
from test_text_tasks import probe
from t2v_lightning import Task2Vec
module = Task2Vec(probe(), head="keep", sampling="exact")
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", precision="64-true", logger=False,
                  enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(module, DataLoader(texts(11), batch_size=2))
module.embedding.save({folder!r} + f"/rank{{trainer.global_rank}}.safetensors")
"""


@pytest.mark.slow
def test_two_processes_give_the_embedding_of_one(bert: ProbeNetwork, tmp_path: Path) -> None:
    """The shares of the processes differ in the lengths of their texts, and one of them ends with padding."""
    run_script(TWO_PROCESSES, tmp_path)
    alone = embed(texts(11), bert, batch_size=4, **KEEP).fisher
    for rank in (0, 1):
        together = Embedding.load(tmp_path / f"rank{rank}.safetensors").fisher
        np.testing.assert_allclose(together, alone, **CLOSE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
@pytest.mark.parametrize("kill", [1, 4, 5])
def test_a_killed_fit_goes_on_to_the_same_embedding(kill: int, bert: ProbeNetwork, tmp_path: Path) -> None:
    def fit(*callbacks: Any, resume: str | None = None) -> Embedding | None:
        module = Task2Vec(bert, head="lbfgs")
        trainer = Trainer(
            accelerator="cpu", precision="64-true", logger=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
            callbacks=[*callbacks, BatchCheckpoint(tmp_path / "kept", every_n_batches=1)],
        )  # fmt: skip
        trainer.fit(module, DataLoader(texts(), batch_size=4), ckpt_path=resume)  # type: ignore[arg-type]
        return module.embedding

    whole = fit()
    for file in (tmp_path / "kept").glob("*.ckpt"):
        file.unlink()
    with pytest.raises(Killed):
        fit(KillAfter(kill))
    again = fit(resume="last")
    assert whole is not None
    assert again is not None
    assert np.array_equal(again.fisher, whole.fisher)


# --- what is said, and what is refused -----------------------------------------------------------------------


def test_long_texts_are_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    short = probe(max_length=6)
    items = [*texts(10), ("ant " * 9, 1), ("bee " * 7, 2)]
    cut = sum(len(text.split()) + 2 > 6 for text, _ in items)
    mean = sum(max(len(text.split()) - 4, 0) for text, _ in items) / cut
    with caplog.at_level(logging.WARNING, logger="t2v_lightning"):
        embedding = embed(items, short, batch_size=4, **KEEP)
    (message,) = [m for m in caplog.messages if "left out" in m]
    assert message.startswith(f"{cut} of 12 texts have more than the 6 tokens that the probe takes")
    assert f", {mean:.0f} tokens of each in the mean" in message
    assert embedding.meta["texts_cut_off"] == cut
    assert "at most 6 tokens" in embedding.meta["transform"]
    with pytest.raises(ValueError, match="transform"):
        pdist([embedding, embed(items, probe(), batch_size=4, **KEEP)])


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ("", ValueError, "text 3 of the dataset: got an empty text; leave empty texts out"),
        (" \n", ValueError, "text 3 of the dataset: got an empty text"),
        (("", " "), ValueError, "text 3 of the dataset: got an empty text"),
        (7, TypeError, r"text 3 of the dataset: the probe takes a text .str., a pair of texts, .* got a int"),
        (("a", "b", "c"), TypeError, r"text 3 of the dataset.* got a tuple of \(str, str, str\)"),
        (torch.zeros(3, 8, 8), TypeError, "text 3 of the dataset.* got a Tensor"),
    ],
    ids=["empty", "blank", "empty pair", "number", "three", "image"],
)
def test_texts_are_looked_at_before_the_work(
    item: Any, error: type[Exception], message: str, bert: ProbeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProbeNetwork, "features", lambda *_: pytest.fail("the work has begun"))
    items = texts()
    items[3] = (item, 0)
    with pytest.raises(error, match=message):
        embed(items, bert, **KEEP)


def test_images_are_no_texts_and_texts_are_no_images(bert: ProbeNetwork) -> None:
    with pytest.raises(TypeError, match="text 0 of the dataset: the probe takes a text"):
        embed(striped(6), bert, **KEEP)
    with pytest.raises(TypeError, match="takes a PIL image, got str"):
        embed(texts(), small_probe(), head="keep", progress=False)


def test_token_ids_of_another_vocabulary_or_too_many(bert: ProbeNetwork) -> None:
    foreign = [({"input_ids": [2, 25, 3]}, 0), ({"input_ids": [2, 8, 3]}, 1)]
    with pytest.raises(
        ValueError, match="token ids from 2 to 25; the probe has those from 0 to 24: make them with"
    ):
        embed(foreign, bert, progress=False)
    with pytest.raises(ValueError, match="got 30 token ids; the probe takes 24: cut them off"):
        embed([({"input_ids": [2] * 30}, i) for i in range(2)], bert, progress=False)
    with pytest.raises(
        ValueError, match=r"got input_ids of shape \[1, 2\]; those of one text are of shape \[L\]"
    ):
        embed([({"input_ids": [[2, 3]]}, i) for i in range(2)], bert, progress=False)
    for wrong in ({"input_ids": [2.0, 3.0]}, {"input_ids": [2, 3], "attention_mask": [1]}):
        with pytest.raises(ValueError, match="those of one text are integers of one shape"):
            embed([(wrong, i) for i in range(2)], bert, progress=False)
    for empty in ({"input_ids": []}, {"input_ids": [2, 3], "attention_mask": [0, 0]}):
        with pytest.raises(ValueError, match="text 0 of the dataset: got a text without a token"):
            embed([(empty, i) for i in range(2)], bert, progress=False)


def test_embeddings_of_texts_and_of_images_are_not_compared(bert: ProbeNetwork) -> None:
    of_texts = embed(texts(), bert, **KEEP)
    of_images = embed(striped(8), small_probe(3), head="keep", sampling="exact", progress=False)
    with pytest.raises(ValueError, match="embeddings of different probes or layers cannot be compared"):
        pdist([of_texts, of_images])


def test_a_library_of_tasks_of_texts_advises_on_another(bert: ProbeNetwork, tmp_path: Path) -> None:
    library = TaskLibrary()
    tasks = {
        name: embed(texts(18)[start : start + 6], bert, **KEEP)
        for name, start in zip("abc", (0, 6, 12), strict=True)
    }
    for number, (name, embedding) in enumerate(tasks.items()):
        library.add(embedding, {"mean": 10.0 + number, "cls": 20.0 - 5 * number}, name=name, family=name)
    library.save(tmp_path)
    opened = TaskLibrary(tmp_path)
    assert opened.nearest(tasks["b"], 1)[0].name == "b"
    assert opened.recommend(tasks["a"], k=1).experts == ("mean",)
    with pytest.raises(ValueError, match="probe"):
        opened.nearest(embed(striped(8), small_probe(3), head="keep", sampling="exact", progress=False))
