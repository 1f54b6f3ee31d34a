from pathlib import Path

import pytest
from omegaconf import OmegaConf

from t2v_lightning.data import BUILTIN_TASKS, get_datamodule, list_datamodules
from t2v_lightning.data.errors import UnknownDataModuleError

CONFIGS = Path(__file__).parents[2] / "configs" / "dataset"


def test_every_builtin_task_is_listed_once() -> None:
    names = list_datamodules()
    assert len(set(names)) == len(names)
    assert set(BUILTIN_TASKS) <= set(names)


def test_an_unknown_name_lists_the_names_and_the_nearest() -> None:
    with pytest.raises(
        UnknownDataModuleError, match=r"Got dataset 'texturs'.*digits.*Did you mean 'textures'\?"
    ):
        get_datamodule("texturs")


def test_an_unknown_option_lists_the_options() -> None:
    with pytest.raises(
        TypeError, match=r"Got option 'shuffle' for dataset 'digits': allowed are .*batch_size"
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
