"""Everything under src, and what README and licence mention, is in the wheel or the repository."""

import configparser
from fnmatch import fnmatch
from pathlib import Path

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
