"""Rooms in one order, no import cycle, private names of other packages in one file; read off the code."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "t2v_lightning"

# A room is a folder or a file at the top of the package, and may import those before it.
ROOMS = [
    "internals", "functional", "embedding", "probes", "data", "metrics", "loading", "plots", "phases", "callbacks",
    "library", "report", "task2vec", "diversity", "cli",
]  # fmt: skip
# The same inside the mathematics. `distances` stands apart, and nothing here uses it or `transferability`.
FUNCTIONAL = [
    "distances",
    "random", "fisher_sums", "inputs", "likelihood", "head", "layers", "engine", "filterwise", "noise",
    "transferability",
]  # fmt: skip

LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics", "hydra", "omegaconf"}


# --- the imports of every file -------------------------------------------------------------------------------


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PLUGINS = {module_name(path): path for path in sorted(PACKAGE.parent.glob("hydra_plugins/**/*.py"))}
TREES = {module: ast.parse(path.read_text()) for module, path in (FILES | PLUGINS).items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """All that a file imports, also inside functions and for type checkers; a package stands for its `__init__`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield whole if whole in FILES or whole in PLUGINS else source


IMPORTS = {module: sorted(set(imports(tree))) for module, tree in TREES.items()}


def room_of(module: str, package: str = "t2v_lightning") -> str:
    """The room of `package` that a module stands in; `package` itself for its `__init__`."""
    return module.removeprefix(package).strip(".").split(".")[0] or package


def inside(package: str) -> list[str]:
    return [module for module in FILES if module == package or module.startswith(f"{package}.")]


def upward(room: str, rooms: list[str], package: str = "t2v_lightning") -> list[str]:
    """Imports by files of a room of files that stand in a later room of the package, or in none."""
    allowed = {*rooms[: rooms.index(room) + 1], "_version", "_spelling"}
    return [
        f"{module} -> {name}"
        for module in inside(f"{package}.{room}")
        for name in IMPORTS[module]
        if name in inside(package) and room_of(name, package) not in allowed
    ]


# --- rooms ---------------------------------------------------------------------------------------------------


def test_the_package_holds_the_rooms_and_nothing_else() -> None:
    found = {room_of(module) for module in FILES} - {"t2v_lightning", "__main__", "_version", "_spelling"}
    assert found == set(ROOMS), (
        "give every folder and file at the top a place in ROOMS and in ARCHITECTURE.md"
    )
    assert len(ROOMS) <= 15


def test_the_mathematics_holds_its_rooms_and_nothing_else() -> None:
    package = "t2v_lightning.functional"
    found = {room_of(module, package) for module in inside(package)} - {package}
    assert found == set(FUNCTIONAL), "give every folder and file of functional a place in FUNCTIONAL"


@pytest.mark.parametrize("folder", [module for module, path in FILES.items() if path.name == "__init__.py"])
def test_every_folder_says_its_purpose_in_a_line(folder: str) -> None:
    line = (ast.get_docstring(TREES[folder]) or "").split("\n")[0]
    assert re.fullmatch(r"[A-Z].{10,110}[.:]", line), f"{folder}: {line!r}"


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in FILES.values()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_nothing_is_imported_by_a_relative_path() -> None:
    assert [f"{module}: {name}" for module in IMPORTS for name in IMPORTS[module] if name[0] == "."] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({m: [name for name in IMPORTS[m] if name in IMPORTS] for m in IMPORTS}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle, each imported by the next: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_to_earlier_rooms(room: str) -> None:
    assert upward(room, ROOMS) == []


@pytest.mark.parametrize("room", FUNCTIONAL)
def test_imports_inside_the_mathematics_go_to_earlier_rooms(room: str) -> None:
    assert upward(room, FUNCTIONAL, "t2v_lightning.functional") == []


def importers(package: str, target: str) -> list[str]:
    """Files outside `target`, but inside `package`, that import from `target`."""
    targets = inside(target)
    return [m for m in inside(package) if m not in targets and not set(targets).isdisjoint(IMPORTS[m])]


def test_rooms_that_do_not_know_each_other() -> None:
    assert importers("t2v_lightning.phases", "t2v_lightning.data") == []
    assert importers("t2v_lightning.data", "t2v_lightning.phases") == []
    for apart in ("distances", "transferability"):
        assert importers("t2v_lightning.functional", f"t2v_lightning.functional.{apart}") == []


# --- what the rooms know of other packages -------------------------------------------------------------------


def foreign(room: str) -> dict[str, set[str]]:
    """Other packages that each file of a room imports."""
    return {m: {name.split(".")[0] for name in IMPORTS[m]} for m in inside(f"t2v_lightning.{room}")}


def test_the_mathematics_knows_no_trainer_no_terminal_and_no_log() -> None:
    unknown = LIGHTNING | {"rich", "logging"}
    assert {m: known & unknown for m, known in foreign("functional").items() if known & unknown} == {}


def test_phases_know_no_trainer() -> None:
    assert {m: known & LIGHTNING for m, known in foreign("phases").items() if known & LIGHTNING} == {}


def is_private(name: str) -> bool:
    """One underscore before it and none behind; a named tuple's methods and `os._exit` are public."""
    return name.startswith("_") and not name.endswith("_") and name not in ("_replace", "_asdict", "_exit")


def own_names(tree: ast.AST) -> Iterator[str]:
    """What a file itself defines: functions, classes, fields, and attributes that its classes set on themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_itself(node):
            yield node.attr


def of_itself(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


INHERITED = {name for tree in TREES.values() for name in own_names(tree)}
"""Names that a class may have from a base in another file."""

BY_NAME = ("getattr", "setattr", "hasattr", "delattr")


def private_uses(tree: ast.AST) -> Iterator[str]:
    """Private names of torch and Lightning that a file imports, reads or sets, also by `getattr` and its like."""
    own = set(own_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            source = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = [source + alias.name for alias in node.names]
            theirs = [name for name in names if name.startswith(("torch", "pytorch_lightning", "lightning"))]
            yield from (name for name in theirs if any(is_private(part) for part in name.split(".")))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if node.attr not in (INHERITED if of_itself(node) else own):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in BY_NAME:
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(name.value) and name.value not in own:
                yield ast.unparse(node)


def test_private_names_of_torch_and_lightning_stand_in_one_file() -> None:
    adapter = "t2v_lightning.internals"
    found = {module: sorted(set(private_uses(tree))) for module, tree in TREES.items() if module != adapter}
    assert {module: uses for module, uses in found.items() if uses} == {}, f"ask {adapter} for them"


# --- the page ------------------------------------------------------------------------------------------------


def test_the_page_on_architecture_has_these_rooms() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    chains = re.findall(r"^```text\n(.+?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert [re.split(r"\s+<-\s+", chain.strip()) for chain in chains] == [ROOMS, FUNCTIONAL[1:]]
    rows = re.findall(r"^\| `(\w+)` \| \S", page, flags=re.MULTILINE)
    assert rows == ROOMS, "each room has one row in the table, in this order"
    assert len(page.splitlines()) <= 50, "the page is one screen"
