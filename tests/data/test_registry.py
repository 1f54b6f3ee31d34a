from pathlib import Path

import pytest
from omegaconf import OmegaConf

from t2v_lightning.data import BUILTIN_TASKS, TEXT_TASKS, get_datamodule, list_datamodules
from t2v_lightning.data.errors import UnknownDataModuleError

CONFIGS = Path(__file__).parents[2] / "configs" / "dataset"


def test_every_builtin_task_is_listed_once() -> None:
    names = list_datamodules()
    assert len(set(names)) == len(names)
    assert set(BUILTIN_TASKS | TEXT_TASKS) <= set(names)


def test_every_benchmark_is_listed() -> None:
    benchmarks = (
        "mnist fashion_mnist kmnist emnist_letters cifar10 cifar100 stl10 svhn split_mnist split_cifar "
        "cifar10_mnist cub200 inat2018 cub_inat2018 imat2018_fashion image_folder hf text"
    )
    assert set(benchmarks.split()) == set(list_datamodules()) - set(BUILTIN_TASKS | TEXT_TASKS)


@pytest.mark.parametrize(
    ("alias", "name"), [("letters", "emnist_letters"), ("imat2018fashion", "imat2018_fashion")]
)
def test_some_have_a_second_name(alias: str, name: str) -> None:
    assert get_datamodule(alias).name == name
    assert alias not in list_datamodules()
    with pytest.raises(UnknownDataModuleError, match=f"did you mean '{alias}'"):
        get_datamodule(f"{alias}s")


def test_an_unknown_name_is_told_with_the_nearest_and_where_all_are_listed() -> None:
    with pytest.raises(
        UnknownDataModuleError,
        match=r"got dataset 'texturs'.* did you mean 'textures'\? .*list_datamodules\(\)",
    ) as caught:
        get_datamodule("texturs")
    assert len(str(caught.value)) < 160


def test_an_unknown_option_lists_the_options() -> None:
    with pytest.raises(
        TypeError, match=r"got option 'shuffle' for dataset 'digits'; allowed are .*batch_size"
    ):
        get_datamodule("digits", shuffle=True)


def test_every_datamodule_has_a_config() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} >= set(list_datamodules())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_opens_the_datamodule_it_is_named_after(path: Path) -> None:
    options = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(options, dict)
    assert {"name", "root", "task_id"} <= set(options)
    datamodule = get_datamodule(**{str(key): value for key, value in options.items()})
    assert datamodule.name == path.stem
