"""The section of a report on a library."""

from pathlib import Path

import pytest
from library_examples import World

from t2v_lightning.embedding.collection import find_embeddings, load_embeddings
from t2v_lightning.library import TaskLibrary
from t2v_lightning.report.__main__ import main
from t2v_lightning.report.comparison import compare
from t2v_lightning.report.library import LIBRARY_FIGURES, library_section

NAME = "<script>birds</script>"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    world = World(seed=4)
    library, centres = world.library(families=3, tasks=4)
    library.save("lib")
    for number, name in enumerate((NAME, "signs")):
        world.task(centres[number], name, "")[0].save(Path("new", str(number), "embedding.safetensors"))
    return tmp_path


@pytest.mark.usefixtures("unpainted")
def test_advice_and_figures_are_in_the_report(folder: Path) -> None:
    main(["new", "--library", "lib"])
    page = Path("new", "report.html").read_text()
    assert page.count('<section id="library"') == 1
    for name in LIBRARY_FIGURES:
        assert Path("new", f"{name}.png").exists()
        assert Path("new", f"{name}.pdf").exists()
    assert page.count("Library: ") == 3 * 2  # as a caption, and instead of the picture
    main(["new"])
    assert not any(Path("new", f"{name}.png").exists() for name in LIBRARY_FIGURES)
    assert '<section id="library"' not in Path("new", "report.html").read_text()


def test_each_task_has_the_advice_of_the_library(folder: Path) -> None:
    group, library = load_embeddings(find_embeddings(["new"])), TaskLibrary("lib")
    section = library_section(library, compare(group))
    assert "<script>" not in section
    assert "&lt;script&gt;birds&lt;/script&gt;" in section
    for embedding in group:
        found = library.recommend(embedding)
        assert ", ".join(found.experts) in section
        assert found.reason in section


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--library", "new"], "holds no library"),
        (["--protocol", "probe"], "--protocol belongs to --library"),
        (["--library", "lib", "--taxonomy"], "give one of them"),
        (["--library", "lib", "--protocol", "finetune"], "no results of the protocol finetune"),
    ],
)
def test_errors_come_before_the_report(
    words: list[str], text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["new", *words])
    assert text in capsys.readouterr().err
    assert not Path("new", "report.html").exists()
