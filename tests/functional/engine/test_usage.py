"""Names of layers, and the kinds of parameters that can be asked for."""

import pytest

from t2v_lightning.functional.engine.usage import check_include, layer_name


def test_layers_are_named_after_their_modules() -> None:
    assert layer_name("backbone.layer1.0.conv.weight", "backbone.") == "layer1.0.conv"
    assert layer_name("block.attention.in_proj_weight") == "block.attention.in_proj_weight"
    assert layer_name("weight") == "weight"
    assert layer_name("my.backbone.weight", "backbone.") == "my.backbone"


@pytest.mark.parametrize("include", ["Weights", "", "norm"])
def test_an_unknown_include_names_the_known_ones(include: str) -> None:
    with pytest.raises(ValueError, match=r"allowed are 'weights', 'weights\+norm', 'all'"):
        check_include(include)
