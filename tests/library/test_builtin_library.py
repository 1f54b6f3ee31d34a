"""The library that ships, and asking it about a folder of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from t2v_lightning.cli import plain
from t2v_lightning.cli.advising import embedding_for, short_list
from t2v_lightning.data import BUILTIN_TASKS
from t2v_lightning.library import Protocol, TaskLibrary, builtin_library
from t2v_lightning.library.builtin import open_library
from t2v_lightning.library.review import review
from t2v_lightning.probes import get_probe, list_probes


@pytest.fixture(scope="module")
def library() -> TaskLibrary:
    return builtin_library()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes: stripes that run one way or the other."""
    root, rng = tmp_path_factory.mktemp("stripes"), np.random.default_rng(0)
    for name in ("across", "down"):
        (root / name).mkdir()
        for number in range(6):
            waves = 127 + 100 * np.sin(np.arange(48) / rng.uniform(1, 3))
            grey = np.broadcast_to(waves[:, None] if name == "across" else waves, (48, 48)).astype(np.uint8)
            Image.fromarray(grey).convert("RGB").save(root / name / f"{number}.png")
    return root


def test_every_builtin_task_has_the_error_of_every_expert(library: TaskLibrary) -> None:
    assert library.names == list(BUILTIN_TASKS)
    experts = list(library.experts)
    errors = library.results.errors(library.names, experts, Protocol("probe", images=10))
    assert errors.shape == (17, 9)
    assert np.isfinite(errors).all()
    assert {e.split(",")[0] for e in experts} <= set(list_probes())
    assert library.experts["efficientnet_lite0+digits"] == "digits"
    random = errors[:, experts.index("efficientnet_lite0, random weights")]
    assert (random > errors[:, experts.index("efficientnet_lite0")]).mean() > 0.8


def test_its_advice_on_its_own_tasks_is_better_than_chance(library: TaskLibrary) -> None:
    regrets = review(library).regrets
    assert regrets["library"].mean() < 0.5 * regrets["chance"].mean()


def test_a_folder_of_images_gets_advice(library: TaskLibrary, photos: Path) -> None:
    embedding = embedding_for(str(photos), library, max_samples=8)
    found = library.recommend(embedding, k=2)
    assert len(found.experts) == 2
    assert "efficientnet_lite0, random weights" not in found.experts


@pytest.mark.slow
def test_the_plain_command_prints_it_in_80_columns(photos: Path) -> None:
    result = CliRunner().invoke(
        plain.app, ["recommend", str(photos), "--max-samples", "8"], terminal_width=80
    )
    assert result.exit_code == 0, result.output
    assert "efficientnet_lite" in result.output
    asked = CliRunner().invoke(
        plain.app,
        ["recommend", str(photos), "--max-samples", "8", "--protocol", "probe, 10 images a class"],
    )
    assert "protocol='probe, 10 images a class'" in " ".join(asked.output.split())
    missing = CliRunner().invoke(plain.app, ["recommend", str(photos), "--library", "none"])
    assert missing.exit_code == 1
    assert "none holds no library" in missing.output


@pytest.mark.slow
def test_the_plain_command_tries_a_short_list(photos: Path) -> None:
    words = ["recommend", str(photos), "--max-samples", "8", "-k", "2", "--try", "2"]
    result = CliRunner().invoke(plain.app, words, terminal_width=80)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "by library and 2 tried" in said
    assert "Run on the task's own images were 2 of the experts" in said


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--protocol", "probe"], "no results of the protocol probe; it has probe, 10 images a class"),
        (["--protocol", "bad"], "'bad' is no protocol"),
        (["--try", "1"], "--try"),
        (["-k", "0"], "-k"),
    ],
)
def test_bad_options_are_told_of_before_anything_is_embedded(
    words: list[str], text: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t2v_lightning.cli.advising.embedding_for", None)
    found = CliRunner().invoke(plain.app, ["recommend", str(photos), *words], terminal_width=200)
    assert found.exit_code in (1, 2)
    assert text in found.output


def test_a_short_list_needs_the_images(library: TaskLibrary, tmp_path: Path) -> None:
    library[library.names[0]].save(tmp_path / "embedding.safetensors")
    with pytest.raises(ValueError, match="holds an embedding; networks are tried on the images themselves"):
        short_list(str(tmp_path), "builtin", 2, 8)


def test_what_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'builtin' is the one that comes with the package"):
        open_library(tmp_path)


def test_small_fine_tunes_differ_from_their_base_in_their_norms_only() -> None:
    base, tuned = (
        get_probe(name, input_size=32) for name in ("efficientnet_lite0", "efficientnet_lite0+digits")
    )
    assert tuned.name == "efficientnet_lite0+digits"
    moved = {
        name.rsplit(".", 2)[-2]
        for (name, a), b in zip(base.backbone.named_parameters(), tuned.backbone.parameters(), strict=True)
        if not a.equal(b)
    }
    assert moved == {"bn0", "bn1", "bn2"}
    random = get_probe("efficientnet_lite0+digits", weights=None, input_size=32)
    assert random.digest == get_probe("efficientnet_lite0", weights=None, input_size=32).digest
