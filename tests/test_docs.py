"""The site builds without a warning, needs nothing from elsewhere, and its pages are true."""

import ast
import configparser
import importlib
import multiprocessing
import re
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import get_origin

import numpy as np
import pytest

from t2v_lightning.functional.distances import DISTANCES, pdist

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NEWCOMERS = ("own_data", "reading_distances", "extending")
"""Pages whose Python runs as it stands, block after block."""


def build(folder: Path, log: Path) -> None:
    from sphinx.cmd.build import build_main

    with log.open("w") as said, redirect_stdout(said), redirect_stderr(said):
        sys.exit(build_main(["-q", "-W", "--keep-going", "-E", str(DOCS), str(folder)]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as in CONTRIBUTING.md, with every warning an error.

    In a fork, which has the package imported already; autodoc changes the signatures of what it documents.
    """
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    log = folder.with_suffix(".log")
    process = multiprocessing.get_context("fork").Process(target=build, args=(folder, log))
    process.start()
    process.join(300)
    process.kill()
    assert process.exitcode == 0, log.read_text()
    return folder


def test_every_page_is_in_the_site_and_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = {page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")}
    assert [page for page in pages if not (site / page).is_file()] == []
    fetched = r"<(?:script|img|iframe)[^>]* src=\"(https?:)?//|<link[^>]* href=\"(https?:)?//"
    assert [p.name for p in site.rglob("*.html") if re.search(fetched, p.read_text())] == []
    styles = r"@import|url\([\"']?(?:https?:)?//"
    assert [p.name for p in site.rglob("*.css") if re.search(styles, p.read_text())] == []


def test_formulas_are_mathml(site: Path) -> None:
    theory = (site / "theory.html").read_text()
    formulas = re.findall(r"^\$\$$(.*?)^\$\$$", (DOCS / "theory.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(formulas) > 5
    assert theory.count('<div class="formula"><math') == len(formulas)
    assert "merror" not in theory
    assert "$" not in re.sub(r"<[^>]*>|<script.*?</script>", "", theory, flags=re.DOTALL)


def test_the_api_pages_have_every_public_name(site: Path) -> None:
    text = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    documented = {name.rpartition(".")[2] for name in re.findall(r'id="(t2v_lightning\.[\w.]+)"', text)}
    rooms = (
        "data", "probes", "plots", "library", "library.methods", "phases", "report", "task2vec", "functional.distances",
        "functional.transferability", "functional.likelihood", "functional.layers", "functional.head",
    )  # fmt: skip
    for name in ("t2v_lightning", *(f"t2v_lightning.{room}" for room in rooms)):
        module = importlib.import_module(name)
        names = {public: getattr(module, public) for public in module.__all__}
        code = {public for public, what in names.items() if callable(what) and get_origin(what) is None}
        missing = code - documented
        assert missing == set(), f"put these of {name} onto a page of docs/api"
    assert {"pdist", "cdist", "noise_floor", "DISTANCES", "filterwise_fisher"} <= documented


def test_the_table_of_distances_is_complete() -> None:
    theory = (DOCS / "theory.md").read_text()
    assert [name for name in DISTANCES if f"\n| `{name}`" not in theory] == []


def test_the_readings_of_the_cosine_distance_hold() -> None:
    rows = re.findall(r"^\| ([\d.]+) \| (.*?) \|$", (DOCS / "numbers.md").read_text(), flags=re.MULTILINE)
    half = np.repeat([1, -1], 50)
    for said, how in rows:
        factor = re.search(r"factor of (\d+)", how)
        if factor:
            a, b = np.ones(100), float(factor[1]) ** half
            assert pdist([a, b])[0, 1] == pytest.approx(float(said), abs=0.05)
    assert sum("factor of" in how for _, how in rows) == 3
    assert pdist([np.arange(1.0, 9.0), 5 * np.arange(1.0, 9.0)])[0, 1] == pytest.approx(0, abs=1e-6)
    assert pdist([[1.0, 0.0], [0.0, 1.0]])[0, 1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_commands_in_the_pages_use_settings_that_exist(page: Path) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from t2v_lightning.cli.run import CONFIGS

    commands = re.findall(
        r"^[^|`\n]*train\.py\b(.*?)$", page.read_text().replace("\\\n", " "), flags=re.MULTILINE
    )
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for command in commands:
            line = re.sub(r"`seq -s , (\d+) \d+`|range\((\d+),\d+\)", "0", command)
            words = [word for word in shlex.split(line.replace("$", ""), comments=True) if "=" in word]
            compose("config", [re.sub(r",.*", "", word) for word in words if not word.startswith("-")])


@pytest.mark.slow
@pytest.mark.parametrize("page", NEWCOMERS)
def test_python_in_the_pages_for_newcomers_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a reader would type them, but with a quick head; what a comment says that a line prints is printed."""
    if page == "own_data":
        pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(blocks):
        block = block.replace("progress=False", "progress=False, head='lbfgs'")
        exec(compile(block, f"{page}.md, Python block {number + 1}", "exec"), names)
        said = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
        assert capsys.readouterr().out.splitlines()[: len(said)] == said or not said


def test_every_setting_is_on_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    monkeypatch.syspath_prepend(DOCS)
    settings_page = importlib.import_module("generated_pages").settings_page

    page = settings_page()
    for file, prefix in (
        ("config", ""),
        ("task2vec/montecarlo", "task2vec."),
        ("task2vec/variational", "task2vec."),
    ):
        content = OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / f"{file}.yaml"))
        assert isinstance(content, dict)
        names = [name for name in leaves(content) if name.split(".")[0] not in ("defaults", "hydra")]
        assert [name for name in names if f"| `{prefix}{name}` |" not in page] == []
    for group in ("dataset", "probe", "task2vec", "trainer", "logger", "experiment"):
        for choice in (ROOT / "configs" / group).glob("*.yaml"):
            assert re.search(rf"\| `{group}={choice.stem}` \| \S", page), f"{choice} begins with no comment"


def leaves(content: dict[object, object], prefix: str = "") -> list[str]:
    found = []
    for name, value in content.items():
        found += leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found


def test_texts_quoted_under_troubleshooting_are_in_the_source() -> None:
    quoted = re.findall(r"^\| `(.+?)`.*? \| ", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    texts = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    assert len(quoted) > 60
    assert [quote for quote in quoted if not any(quote in text for text in texts)] == []


def test_the_page_on_installing_names_every_extra() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    first_cells = "".join(re.findall(r"^\| (`.*?) \|", (DOCS / "install.md").read_text(), re.MULTILINE))
    assert set(config["options.extras_require"]) == set(re.findall(r"`(\w+)`", first_cells))


def test_the_version_to_cite_is_this_one() -> None:
    from t2v_lightning import __version__

    assert f'\nversion: "{__version__}"\n' in (ROOT / "CITATION.cff").read_text()
    assert f"{{{__version__}}}" in (DOCS / "citing.md").read_text()


def test_python_names_in_the_page_for_newcomers_exist() -> None:
    page = (DOCS / "coming_from_reference.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("from t2v_lightning"):
                exec(line, {})
