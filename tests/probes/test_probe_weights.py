from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from t2v_lightning.probes.weights import build_with_weights, read_state_dict


def build(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, num_classes))


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}]
)
def test_common_layouts(tmp_path: Path, wrap: object) -> None:
    state = {f"module.{name}": value for name, value in build(3).state_dict().items()}
    torch.save(wrap(state), tmp_path / "w.pth")  # type: ignore[operator]
    loaded = read_state_dict(tmp_path / "w.pth")
    model = build_with_weights(build, loaded, "w.pth")
    assert model[2].out_features == 3
    assert torch.equal(model[0].weight, state["module.0.weight"])


def test_pickled_networks_are_not_executed(tmp_path: Path) -> None:
    torch.save(build(3), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"torch.save\(model.state_dict\(\), path\)"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x00" * 64])
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_state_dict(tmp_path / name)


def test_not_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"holds list; it must hold a state dict"):
        read_state_dict(tmp_path / "w.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no weights file"):
        read_state_dict(tmp_path)


def test_weights_of_another_network(tmp_path: Path) -> None:
    save_file({"0.weight": torch.ones(5, 4), "extra": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w.safetensors are not those of Sequential: Missing key.*0\.bias"):
        build_with_weights(build, read_state_dict(tmp_path / "w.safetensors"), "w.safetensors")
    wrong = {**build(1000).state_dict(), "0.weight": torch.ones(5, 7)}
    with pytest.raises(ValueError, match="size mismatch for 0"):
        build_with_weights(build, wrong, "it")
