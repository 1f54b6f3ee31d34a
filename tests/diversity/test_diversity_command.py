"""`python -m t2v_lightning.diversity` on texts and on images."""

import json
from pathlib import Path

import pytest
from small_texts import WORDS, model, save

from t2v_lightning.diversity.__main__ import main

pytest.importorskip("transformers")


def write(file: Path, shift: int) -> Path:
    """Forty paragraphs of words, of which `shift` changes the first ones."""
    texts = [" ".join(WORDS[(n * k + shift) % 20] for k in range(2, 6 + n % 5)) for n in range(1, 41)]
    file.write_text("\n\n".join(texts))
    return file


def test_texts_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(model("gpt2", "AutoModelForCausalLM"), tmp_path / "gpt2")
    places = [str(write(tmp_path / f"{name}.txt", shift)) for name, shift in (("a", 0), ("b", 7))]
    out = tmp_path / "out"
    main([*places, "--probe", f"hf/{folder}", "--batches", "4", "--batch-size", "10", "--length", "6",
          "--device", "cpu", "--output", str(out)])  # fmt: skip
    shown = capsys.readouterr().out
    assert "a and b: 0." in shown
    result = json.loads((out / "a.json").read_text())
    assert result["settings"]["length"] == 6
    texts = Path(places[0]).read_text().split("\n\n")
    long = [text for text in texts if len(text.split()) + 2 > 6]  # the tokenizer adds two
    assert result["cut_off"] == len(long) > 0
    assert f"{len(long)} of 40 texts cut off" in shown
    assert result["lower"]["coefficient"] < result["coefficient"]
    assert f"{result['coefficient']:.4f}" in shown
    assert (out / "diversity.png").stat().st_size > 5000


def test_what_cannot_be_done_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(model("gpt2", "AutoModelForCausalLM"), tmp_path / "gpt2")
    (tmp_path / "empty.txt").touch()
    for place, probe, expected in (
        (tmp_path / "empty.txt", f"hf/{folder}", "holds no text"),
        ("digits", "resnet81", "unknown probe 'resnet81'"),
    ):
        with pytest.raises(SystemExit):
            main([str(place), "--probe", probe])
        assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_images_of_a_datamodule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["digits", "--probe", "efficientnet_lite0", "--input-size", "32", "--batches", "4", "--batch-size", "48",
          "--skip-layers", "5", "--device", "cpu", "--bounds", "3", "--output", str(tmp_path)])  # fmt: skip
    assert "digits: 0." in capsys.readouterr().out
    assert (tmp_path / "digits.json").exists()
