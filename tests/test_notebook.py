"""The notebook is stored with its output, without a trace of the machine, and still runs."""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "small_datasets_example.ipynb"
NEAREST = re.compile(r"^(\w+) +is nearest to (\w+) ", flags=re.MULTILINE)


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def printed(notebook: Any) -> str:
    return "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def python(cell: Any) -> str:
    """The cell without IPython's own commands."""
    return re.sub(r"^%.*$", "", cell.source, flags=re.MULTILINE)


def shows_something(cell: Any) -> bool:
    tree = ast.parse(python(cell))
    prints = any(isinstance(n, ast.Name) and n.id == "print" for n in ast.walk(tree))
    return prints or isinstance(tree.body[-1], ast.Expr)


def test_it_is_stored_as_it_ran() -> None:
    notebook = read()
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [bool(cell.outputs) for cell in cells] == [shows_something(cell) for cell in cells]
    kinds = {kind for cell in cells for out in cell.outputs for kind in out.get("data", {})}
    assert "image/png" in kinds
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert len(NEAREST.findall(printed(notebook))) == 6


def test_it_is_small_and_names_no_folder_of_a_machine() -> None:
    assert NOTEBOOK.stat().st_size < 500_000
    notebook = read()
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    texts = [printed(notebook)]
    texts += [
        out.data.get("text/plain", "") for c in code_cells(notebook) for out in c.outputs if "data" in out
    ]
    assert not re.search(r"(?<!\w)/\w+/|[A-Z]:\\|@[\w-]+\.", "".join(texts))


@pytest.mark.slow
def test_its_code_runs_with_few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    names: dict[str, Any] = {}
    for number, cell in enumerate(code_cells(read())):
        source = python(cell).replace('"max_samples": 100}', '"max_samples": 16, "head": "lbfgs"}')
        source = source.replace("input_size=96", "input_size=48")
        exec(compile(source, f"cell {number + 1}", "exec"), names)
    assert [embedding.meta["samples"] for embedding in names["embeddings"]] == [16] * 6
    assert names["again"] == names["embeddings"][0]


@pytest.mark.slow
def test_a_kernel_runs_it_to_the_stored_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.delenv("DATA_ROOT", raising=False)
    notebook = read()
    stored = NEAREST.findall(printed(notebook))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    assert NEAREST.findall(printed(notebook)) == stored
    assert sorted(file.name for file in tmp_path.glob("embeddings/*")) == sorted(
        f"{name}.safetensors" for name, _ in stored
    )
