"""Names, arguments and defaults that other code relies on."""

import ast
import inspect
from pathlib import Path

import pytest

import t2v_lightning
from t2v_lightning import Embedding, FilterwiseFisher, ProbeNetwork, Task2Vec, embed, embed_many, get_probe
from t2v_lightning.data import get_datamodule, list_datamodules
from t2v_lightning.functional import filterwise_fisher
from t2v_lightning.functional.distances import DISTANCES, cdist, pdist
from t2v_lightning.library import TaskLibrary
from t2v_lightning.plots import plot_distance_matrix

PACKAGE = Path(t2v_lightning.__file__).parent


def test_the_package_itself_holds_public_names_and_nothing_else() -> None:
    kinds = {type(node).__name__ for node in ast.parse((PACKAGE / "__init__.py").read_text()).body}
    assert kinds <= {"Expr", "Import", "Assign"}
    assert sorted(t2v_lightning.__all__) == [
        "Embedding", "FilterwiseFisher", "ProbeNetwork", "Task2Vec", "Task2VecCallback", "__version__",
        "cross_diversity_coefficient", "diversity_coefficient", "embed", "embed_many", "get_probe", "to_pandas",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (get_probe, ["name", "num_classes"]),
        (ProbeNetwork.from_module, ["module"]),
        (Task2Vec, ["probe", "method", "max_samples", "skip_layers"]),
        (Task2Vec.embed, ["dataset"]),
        (embed, ["dataset", "probe", "method", "device", "batch_size", "num_workers", "seed", "progress"]),
        (embed_many, ["tasks", "probe", "method", "device", "batch_size", "num_workers", "seed", "progress"]),
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
        (TaskLibrary, ["folder"]),
        (TaskLibrary.add, ["embedding", "results", "name", "family"]),
        (TaskLibrary.add_result, ["task", "expert", "error", "stderr", "protocol"]),
        (TaskLibrary.nearest, ["embedding", "k"]),
        (TaskLibrary.recommend, ["embedding", "method", "k", "experts", "features"]),
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
    # None: those of a DataLoader or datamodule; 64 and 0 for a dataset
    assert shown == {
        "method": "montecarlo",
        "device": "auto",
        "batch_size": None,
        "num_workers": None,
        "seed": 0,
    }
    parameters = inspect.signature(filterwise_fisher).parameters
    shown = {name: parameters[name].default for name in ("sampling", "likelihood", "weights", "generator")}
    assert shown == {"sampling": "exact", "likelihood": "softmax", "weights": None, "generator": None}
    assert inspect.signature(Task2Vec).parameters["max_samples"].default == 10_000
    assert next(iter(DISTANCES)) == "cosine"


def test_every_public_thing_says_what_it_is() -> None:
    undocumented = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
        and not any(ast.unparse(d).split(".")[-1] == "overload" for d in node.decorator_list)
        # a rule for another type of layer, likelihood, ... is told by its name and its base
        and not (isinstance(node, ast.ClassDef) and node.bases)
    ]
    assert undocumented == []
