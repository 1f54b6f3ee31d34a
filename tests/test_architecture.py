"""Imports run one way, public names exist, and everything under src is in the wheel."""

import ast
import configparser
import inspect
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import t2v_lightning
from t2v_lightning import Embedding, FilterwiseFisher, ProbeNetwork, Task2Vec, embed, get_probe
from t2v_lightning.data import get_datamodule, list_datamodules
from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.distances import DISTANCES, cdist, pdist
from t2v_lightning.plots import plot_distance_matrix

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "t2v_lightning"

# A unit imports those before it in this list, itself, and the leaves.
ORDER = [
    "functional", "accumulators", "selection", "phases", "plots", "callbacks", "task2vec", "tracking", "report",
    "sweeps", "cli", "__main__",
]  # fmt: skip
LEAVES = ["probes", "embedding", "loading", "_version"]
# Files that are part of a unit of another name.
PARTS = {
    "embedding_files": "embedding", "reference_pickle": "embedding", "plot_style": "plots", "task_plots": "plots",
    "profile_plots": "plots",
    "assembly": "task2vec", "lineup": "task2vec", "plain_loop": "task2vec", "trainer_settings": "task2vec",
    "example_images": "callbacks", "run_summary": "callbacks", "tensorboard_pages": "callbacks",
    "batch_checkpoint": "callbacks", "checkpoint_files": "task2vec", "checkpointing": "task2vec",
    "phased_fit": "task2vec", "random_transforms": "task2vec", "stopping": "task2vec",
    "run_checkpoints": "cli", "allocation": "cli", "early_stop": "sweeps", "jobs": "sweeps", "own_process": "sweeps",
    "network_copy": "tracking",
}  # fmt: skip


def unit_of(module: str) -> str:
    """The unit of `t2v_lightning.<unit>...`."""
    name = [*module.split("."), "__init__"][1]
    return PARTS.get(name, name)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(node: ast.AST, module: str) -> Iterator[str]:
    """Modules that a file imports when it runs, also inside functions, but not for type checkers alone."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{module} has a relative import"
        assert node.module is not None
        yield node.module
        # `from t2v_lightning import plots` names a unit, not a public name
        yield from (f"{node.module}.{a.name}" for a in node.names if node.module == "t2v_lightning")
    for child in ast.iter_child_nodes(node):
        yield from imports(child, module)


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = {module_name(path): sorted(set(imports(ast.parse(path.read_text()), path.name))) for path in FILES}


def own_imports(module: str) -> set[str]:
    """Units of the package that a module imports, but for its own."""
    own = {unit_of(name) for name in IMPORTS[module] if name.split(".")[0] == "t2v_lightning"}
    return own - {unit_of(module), "__init__"}


@pytest.mark.parametrize("module", [name for name in IMPORTS if name != "t2v_lightning"])
def test_imports_run_one_way(module: str) -> None:
    unit = unit_of(module)
    if unit in LEAVES:
        allowed = set[str]()
    elif unit == "data":
        allowed = {"loading"}
    else:
        assert unit in ORDER, f"{module} has no place in the house: put its unit into ORDER"
        allowed = {*ORDER[: ORDER.index(unit)], *LEAVES}
        if unit in ("report", "cli", "__main__"):
            allowed.add("data")
    assert own_imports(module) <= allowed


def test_the_page_on_architecture_has_these_arrows() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    arrows = [line.split(" <- ") for line in page.splitlines() if line.count(" <- ") > 2]
    assert arrows == [ORDER], "write the arrows of ORDER into ARCHITECTURE.md"
    assert f"leaves: {', '.join(LEAVES)}\n" in page
    rows = re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)
    private = {"_version", "__main__"}
    assert sorted(rows) == sorted({*ORDER, *LEAVES, "data"} - private), "each unit has one row in its table"
    assert len(page.splitlines()) <= 50, "the page is one screen"


@pytest.mark.parametrize("module", [name for name in IMPORTS if unit_of(name) in ("functional", "phases")])
def test_mathematics_and_phases_know_no_trainer(module: str) -> None:
    outside = {name.split(".")[0] for name in IMPORTS[module]}
    assert not outside & {"pytorch_lightning", "lightning", "torchmetrics", "hydra", "omegaconf"}


def test_the_package_itself_holds_public_names_and_nothing_else() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    kinds = {type(node).__name__ for node in tree.body}
    assert kinds <= {"Expr", "ImportFrom", "Assign"}
    assert sorted(t2v_lightning.__all__) == [
        "Embedding", "FilterwiseFisher", "ProbeNetwork", "Task2Vec", "Task2VecCallback", "__version__", "embed",
        "get_probe",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (get_probe, ["name", "num_classes"]),
        (ProbeNetwork.from_module, ["module"]),
        (Task2Vec, ["probe", "method", "max_samples", "skip_layers"]),
        (Task2Vec.embed, ["dataset"]),
        (embed, ["dataset", "probe", "method", "device", "batch_size", "num_workers", "seed", "progress"]),
        (Embedding, ["fisher", "scale", "stderr", "layers", "meta"]),
        (Embedding.save, ["path"]),
        (Embedding.load, ["path"]),
        (pdist, ["embeddings", "distance"]),
        (cdist, ["a", "b", "distance"]),
        (filterwise_fisher, ["model", "x", "sampling", "likelihood", "weights", "generator"]),
        (FilterwiseFisher, ["size"]),
        (get_datamodule, ["name"]),
        (list_datamodules, []),
        (plot_distance_matrix, []),
    ],
)  # fmt: skip
def test_the_public_functions_take_what_the_design_says(function: object, names: list[str]) -> None:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    assert [name for name in parameters if name in names] == names


def test_defaults_of_the_design() -> None:
    parameters = inspect.signature(embed).parameters
    shown = {
        name: parameters[name].default for name in ("method", "device", "batch_size", "num_workers", "seed")
    }
    assert shown == {"method": "montecarlo", "device": "auto", "batch_size": 64, "num_workers": 0, "seed": 0}
    parameters = inspect.signature(filterwise_fisher).parameters
    shown = {name: parameters[name].default for name in ("sampling", "likelihood", "weights", "generator")}
    assert shown == {"sampling": "exact", "likelihood": "softmax", "weights": None, "generator": None}
    assert inspect.signature(Task2Vec).parameters["max_samples"].default == 10_000
    assert next(iter(DISTANCES)) == "cosine"


def test_every_public_thing_says_what_it_is() -> None:
    undocumented = [
        f"{module_name(path)}.{node.name}"
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
        and not any(ast.unparse(d).split(".")[-1] == "overload" for d in node.decorator_list)
        # a rule for another type of layer, likelihood, ... is told by its name and its base
        and not (isinstance(node, ast.ClassDef) and node.bases)
    ]
    assert undocumented == []


# --- the wheel -----------------------------------------------------------------------------------------------

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def test_every_package_is_in_the_wheel() -> None:
    folders = {module_name(path) for path in FILES if path.name == "__init__.py"}
    plugins = PACKAGE.parent / "hydra_plugins"  # a namespace: no __init__ of its own
    folders |= {
        ".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in plugins.rglob("__init__.py")
    }
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
            owner = name
            relative = path.relative_to(folder)
            while name == "t2v_lightning" and len(relative.parts) > 1:
                owner, relative = f"{owner}.{relative.parts[0]}", Path(*relative.parts[1:])
            patterns = [pattern.removeprefix("**/") for pattern in data.get(owner, [])]
            if not any(fnmatch(path.name, pattern) for pattern in patterns):
                missing.append(str(path.relative_to(ROOT)))
    assert missing == []


def test_what_the_readme_and_the_licence_promise_is_there() -> None:
    pages = ("README.md", "ARCHITECTURE.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md")
    for name in (*pages, "train.py", ".ci/run"):
        assert (ROOT / name).is_file(), name
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert len((ROOT / "train.py").read_text().splitlines()) < 15
