"""Everything under src, and what README and licence mention, is in the wheel or the repository."""

import ast
import configparser
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "t2v_lightning"

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def test_every_package_is_in_the_wheel() -> None:
    inits = PACKAGE.parent.rglob("__init__.py")  # hydra_plugins is a namespace and has none of its own
    folders = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in inits}
    listed = set(SETUP["options"]["packages"].split())
    assert listed == {*folders, "t2v_lightning.configs"}


def test_every_file_beside_the_code_is_in_the_wheel() -> None:
    data = {
        name: [p.strip() for p in value.split(",")] for name, value in SETUP["options.package_data"].items()
    }
    missing = []
    for folder, name in ((PACKAGE, "t2v_lightning"), (ROOT / "configs", "t2v_lightning.configs")):
        for path in folder.rglob("*"):
            if path.is_dir() or path.suffix in (".py", ".pyc"):
                continue
            owner, package = name, folder
            while name == "t2v_lightning":
                inner = package / path.relative_to(package).parts[0]
                if not (inner / "__init__.py").exists():
                    break
                owner, package = f"{owner}.{inner.name}", inner
            patterns = [pattern.removeprefix("**/") for pattern in data.get(owner, [])]
            place = path.name if owner == "t2v_lightning.configs" else str(path.relative_to(package))
            if not any(fnmatch(place, pattern) for pattern in patterns):
                missing.append(str(path.relative_to(ROOT)))
    assert missing == []


def test_what_the_readme_and_the_licence_promise_is_there() -> None:
    pages = ("README.md", "ARCHITECTURE.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md")
    for name in (*pages, "train.py", ".ci/run"):
        assert (ROOT / name).is_file(), name
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert len((ROOT / "train.py").read_text().splitlines()) < 15


def test_the_changelog_begins_with_the_version() -> None:
    """Which stands in one file of the package; a version in development is that of the next release."""
    (assigned,) = ast.parse((PACKAGE / "_version.py").read_text()).body
    assert isinstance(assigned, ast.Assign)
    version = ast.literal_eval(assigned.value)
    heading = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert heading is not None
    development = re.fullmatch(r"(\d+\.\d+\.\d+)\.dev\d+", version)
    assert heading[1] == (f"{development[1]} (unreleased)" if development else version)
    assert SETUP["metadata"]["version"] == "attr: t2v_lightning._version.__version__"


def _run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheel_and_source_archive_are_sound_and_run_alone(tmp_path: Path) -> None:
    """Built and installed without a network; what the wheel depends on is that of this environment."""
    pytest.importorskip("build", reason="needs `pip install build twine`")
    pytest.importorskip("twine", reason="needs `pip install build twine`")
    made = tmp_path / "dist"
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", made, ROOT, folder=tmp_path)
    (wheel,), (source,) = made.glob("*.whl"), made.glob("*.tar.gz")
    assert "PASSED" in _run(
        sys.executable, "-m", "twine", "check", "--strict", wheel, source, folder=tmp_path
    )
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = {str(path.relative_to(PACKAGE.parent)) for path in PACKAGE.rglob("*.py")}
    assert tracked <= names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "setup.cfg", "configs/config.yaml"} <= inside

    alone = tmp_path / "alone"
    venv.create(alone, with_pip=True)
    binaries = alone / "bin"
    _run(binaries / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel, folder=tmp_path)
    (packages,) = alone.glob("lib/python*/site-packages")
    elsewhere = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "others.pth").write_text("\n".join(elsewhere))
    origin = _run(
        binaries / "python", "-c", "import t2v_lightning; print(t2v_lightning.__file__)", folder=tmp_path
    )
    assert Path(origin.strip()).is_relative_to(packages)
    assert _run(binaries / "t2v", "--version", folder=tmp_path).strip() in wheel.name
    assert "cosine" in _run(binaries / "t2v", "list", "distances", folder=tmp_path)
    _run(binaries / "t2v", "embed", "digits_low", "--max-samples", "40", "--out", "made", folder=tmp_path)
    assert [*tmp_path.glob("made/**/embedding.safetensors")]
