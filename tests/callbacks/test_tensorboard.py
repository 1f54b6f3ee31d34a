"""What a fit leaves in TensorBoard, read as TensorBoard reads it."""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from runs import KillAfter, Killed, run_script
from small_probe import small_probe, striped
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.data import DataLoader, Dataset

from t2v_lightning import Embedding, Task2Vec
from t2v_lightning.callbacks.checkpoint import BatchCheckpoint
from t2v_lightning.callbacks.tensorboard import by_stage
from t2v_lightning.phases import HeadOptions

QUICK = HeadOptions(epochs=3, num_samples=300)
VARIATIONAL: dict[str, Any] = {"method": "variational", "num_samples": 30}


def fit(
    logger: Any,
    *callbacks: Callback,
    resume: str | None = None,
    data: Any = None,
    head: Any = QUICK,
    **options: Any,
) -> Embedding:
    module = Task2Vec(small_probe(double=False), head=head, **options)
    trainer = Trainer(
        accelerator="cpu", logger=logger, callbacks=list(callbacks), enable_checkpointing=bool(callbacks),
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data or striped(24, double=False), batch_size=5), ckpt_path=resume)
    assert module.embedding is not None
    return module.embedding


def log_of(folder: Path) -> EventAccumulator:
    kinds = ("scalars", "images", "histograms", "tensors")
    events = EventAccumulator(str(folder), size_guidance=dict.fromkeys(kinds, 0), purge_orphaned_data=False)
    events.Reload()
    return events


def steps(events: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in events.Scalars(tag)]


def logger_in(folder: Path) -> TensorBoardLogger:
    return TensorBoardLogger(str(folder), name="", version="")


METHODS: dict[str, dict[str, Any]] = {"montecarlo": {}, "variational": VARIATIONAL}
Logged = Callable[[str], tuple[Embedding, EventAccumulator]]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """The embedding and the log of an uninterrupted fit by each method, made once."""

    @functools.cache
    def made(method: str) -> tuple[Embedding, EventAccumulator]:
        folder = tmp_path_factory.mktemp(method)
        return fit(logger_in(folder), **METHODS[method]), log_of(folder)

    return made


def test_curves_of_head_and_fisher(logged: Logged) -> None:
    embedding, events = logged("montecarlo")
    assert steps(events, "head/loss") == steps(events, "head/accuracy") == [300, 600, 900]
    assert steps(events, "fisher/norm") == steps(events, "fisher/relative_stderr") == [5, 10, 15, 20, 24]
    assert events.Scalars("fisher/norm")[-1].value == pytest.approx(embedding.norm, rel=1e-5)
    errors = [event.value for event in events.Scalars("fisher/relative_stderr")]
    assert errors[-1] == pytest.approx(embedding.relative_stderr, rel=1e-5)
    assert errors[-1] < errors[0]


def test_the_curve_of_lbfgs_ends_at_the_fitted_head(tmp_path: Path) -> None:
    embedding = fit(logger_in(tmp_path), head="lbfgs")
    events, head = log_of(tmp_path), embedding.meta["head"]
    losses = events.Scalars("head/loss")
    assert [event.step for event in losses] == list(range(1, len(losses) + 1))
    assert np.log(3) > losses[0].value > losses[-1].value  # all classes alike at the start
    assert losses[-1].value == pytest.approx(head["loss"], rel=1e-4)
    assert events.Scalars("head/accuracy")[-1].value == pytest.approx(head["accuracy"], rel=1e-6)


def test_curves_of_the_variational_method_go_by_draws(logged: Logged) -> None:
    embedding, events = logged("variational")
    names = ("loss", "cross_entropy", "beta_kl", "accuracy", "log_variance_mean", "log_variance_std")
    for name in names:
        assert steps(events, f"variational/{name}") == list(range(5, 61, 5))
    loss, cross_entropy, beta_kl = (
        np.array([event.value for event in events.Scalars(f"variational/{name}")]) for name in names[:3]
    )
    np.testing.assert_allclose(loss, cross_entropy + beta_kl, rtol=1e-5)
    rows, noise = rows_of(events), embedding.meta["variational"]
    assert rows["method"] == "variational, 2 epochs of 30 draws, beta 1e-07"
    assert f"accuracy {noise['accuracy']:.1%}" in rows["under noise"]
    assert f"constant guess has {embedding.meta['head']['constant_loss']:.4g}" in rows["under noise"]
    assert f"beta times KL {1e-7 * noise['kl']:.4g}" in rows["under noise"]
    assert rows["relative standard error"] == "not known for this method"
    assert rows["entries"].startswith(f"median {np.median(embedding.fisher):.4g}, from ")


def text_of(events: EventAccumulator) -> str:
    (event,) = events.Tensors("summary/text_summary")
    return str(event.tensor_proto.string_val[0].decode())


def rows_of(events: EventAccumulator) -> dict[str, str]:
    return dict(line.strip("| ").split(" | ", 1) for line in text_of(events).splitlines()[2:])  # type: ignore[misc]


def test_the_summary_is_a_table_of_what_happened(logged: Logged) -> None:
    embedding, events = logged("montecarlo")
    rows = rows_of(events)
    assert rows["classes"] == "3: 0, 1, 2"
    assert rows["images"] == "24, every class counts the same"
    assert rows["probe"] == "small"
    assert rows["method"].startswith("montecarlo, 1 pass per image")
    assert f"accuracy {embedding.meta['head']['accuracy']:.1%}" in rows["head"]
    assert rows["norm"] == f"{embedding.norm:.4g}"
    assert rows["relative standard error"] == f"{embedding.relative_stderr:.1%}"
    assert [part.split()[0] for part in rows["time"].split(", ")] == ["features", "head", "fisher"]
    assert f"torch {torch.__version__}" in rows["versions"]


@pytest.mark.parametrize("method", METHODS)
def test_settings_and_results_are_on_the_page_of_hyperparameters(method: str, logged: Logged) -> None:
    embedding, events = logged(method)
    content = events.PluginTagToContent("hparams")
    started = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
    settings = {name: next(iter(fields(value).values())) for name, value in started.hparams.items()}
    assert settings["task2vec/method"] == method
    assert settings["task2vec/head/num_samples"] == 300
    assert (settings["task2vec/probe"], settings["task"]) == ("small", "list")
    infos = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment.metric_infos
    names = [info.name.tag for info in infos]
    expected = {"embedding/norm": embedding.norm, "train/accuracy": embedding.meta["head"]["accuracy"]}
    if method == "montecarlo":
        expected["embedding/relative_stderr"] = embedding.relative_stderr or 0
    assert {name: events.Scalars(name)[-1].value for name in names} == pytest.approx(expected, rel=1e-6)
    assert "hp_metric" not in events.Tags()["scalars"]
    written = OmegaConf.load(Path(events.path) / "hparams.yaml")
    assert written.task2vec.head.num_samples == 300
    assert written.task == "list"


def fields(message: Any) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}


def test_other_loggers_get_the_settings_too(tmp_path: Path) -> None:
    fit(CSVLogger(str(tmp_path), name="", version=""), max_samples=20, seed=3)
    written = OmegaConf.load(tmp_path / "hparams.yaml")
    assert (written.task2vec.max_samples, written.task2vec.seed, written.task2vec.method) == (
        20,
        3,
        "montecarlo",
    )


def test_histograms_are_one_a_stage_in_the_order_of_the_network(logged: Logged) -> None:
    embedding, events = logged("montecarlo")
    by_name = ["log10_fisher/0 0", "log10_fisher/1 3"]
    assert sorted(events.Tags()["histograms"]) == ["log10_fisher", *by_name]
    assert [event.step for event in events.Histograms("log10_fisher")] == [0, 1]
    for tag, layer in zip(by_name, embedding.layers, strict=True):
        (event,) = events.Histograms(tag)
        logs = np.log10(embedding.layer(layer))
        found = event.histogram_value
        assert (found.num, found.min, found.max) == pytest.approx((logs.size, logs.min(), logs.max()))
        assert found.sum == pytest.approx(logs.sum())
        widths = np.diff(found.bucket_limit)
        np.testing.assert_allclose(widths, np.ptp(logs) / 30, rtol=1e-6)


def test_the_stages_are_those_of_the_probe() -> None:
    layers = {
        name: slice(i, i + 1) for i, name in enumerate(["stem", "blocks.0.a", "blocks.0.b", "blocks.1.a"])
    }
    embedding = Embedding([1, 10, 10, 100], [1] * 4, layers=layers)
    found = by_stage(embedding, ("stem", "norm", "blocks.0", "blocks.1"))
    assert {name: entries.tolist() for name, entries in found.items()} == {
        "0 stem": [0], "1 blocks.0": [1, 1], "2 blocks.1": [2],
    }  # fmt: skip


def test_an_embedding_without_layers_has_no_stages() -> None:
    assert by_stage(Embedding([1, 10], [1, 1])) == {}


def test_images_of_the_task_and_the_profile_are_there(logged: Logged) -> None:
    _, events = logged("montecarlo")
    assert sorted(events.Tags()["images"]) == ["examples", "profile"]
    for tag in ("examples", "profile"):
        (event,) = events.Images(tag)
        with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
            assert len(set(picture.convert("L").getdata())) > 20, "nothing is drawn"


class Noisy(Dataset[Any]):
    """Images that no two readings give alike, by the random numbers of the run."""

    def __init__(self) -> None:
        self.items = striped(24, double=False)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> Any:
        image, label = self.items[item]
        return image + 0.1 * torch.randn(image.shape), label


def test_looking_on_changes_nothing(tmp_path: Path) -> None:
    """The same embedding, and the same random numbers afterwards, with any logger or none."""
    loggers = [False, logger_in(tmp_path / "tensorboard"), CSVLogger(str(tmp_path), name="", version="")]
    found = []
    for logger in loggers:
        seed_everything(3, verbose=False)
        found.append((fit(logger, data=Noisy()), torch.rand(3).tolist(), np.random.rand()))  # noqa: NPY002
    assert found[0] == found[1] == found[2]


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
@pytest.mark.parametrize(
    ("method", "every", "kills"),
    [
        ("montecarlo", 1, [2, 6]),
        ("variational", 3, [9, 1]),
        pytest.param("montecarlo", 3, [9, 1], marks=pytest.mark.slow),
        pytest.param("variational", 1, [2, 6], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_resumed_fit_has_the_log_of_an_uninterrupted_one(
    method: str, every: int, kills: list[int], tmp_path: Path, logged: Logged
) -> None:
    """With a checkpoint every third batch, batches are done again that the log has already."""
    (whole, expected), folder, options = logged(method), tmp_path / "broken", METHODS[method]
    for kill in kills:
        with pytest.raises(Killed):
            fit(logger_in(folder), KillAfter(kill), BatchCheckpoint(folder, every), resume="last", **options)
    assert fit(logger_in(folder), BatchCheckpoint(folder, every), resume="last", **options) == whole
    found = log_of(folder)
    # sorted, as files that are begun in one second are read in no order
    for kind in ("scalars", "images", "histograms", "tensors"):
        assert sorted(found.Tags()[kind]) == sorted(expected.Tags()[kind])
    for tag in expected.Tags()["scalars"]:
        pairs = [sorted((event.step, event.value) for event in log.Scalars(tag)) for log in (expected, found)]
        assert pairs[0] == pairs[1], tag
    for kind in ("Images", "Histograms", "Tensors"):
        for tag in expected.Tags()[kind.lower()]:
            assert len(getattr(found, kind)(tag)) == len(getattr(expected, kind)(tag)), tag
    times = text_of(found).split("| time | ")[1].splitlines()[0]
    assert times.count(" s") == 3, "the time before the kill counts too"


SCRIPT = """
import sys
import torch
from pathlib import Path
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from small_probe import small_probe, striped
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader
from t2v_lightning import Task2Vec
module = Task2Vec(small_probe(), head="lbfgs")
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", precision="64-true", enable_checkpointing=False,
                  logger=TensorBoardLogger({folder!r}, name="", version=""), enable_progress_bar=False,
                  enable_model_summary=False)
trainer.fit(module, DataLoader(striped(23), batch_size=4))
assert trainer.world_size == 2
if trainer.is_global_zero:
    module.embedding.save({folder!r} + "/embedding.safetensors")
"""


@pytest.mark.slow
def test_two_processes_write_one_log_that_ends_at_all_images(tmp_path: Path) -> None:
    run_script(SCRIPT, tmp_path)
    assert len(list(tmp_path.glob("events.out.*"))) == 1
    embedding, events = Embedding.load(tmp_path / "embedding.safetensors"), log_of(tmp_path)
    assert steps(events, "fisher/norm") == [4, 8, 12, 23]  # the first process's own images, then all
    assert events.Scalars("fisher/norm")[-1].value == pytest.approx(embedding.norm, rel=1e-5)
    assert events.Scalars("fisher/relative_stderr")[-1].value == pytest.approx(
        embedding.relative_stderr, rel=1e-5
    )
    assert len(events.Images("examples")) == len(events.Tensors("summary/text_summary")) == 1
