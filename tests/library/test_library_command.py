"""`python -m t2v_lightning.library`."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from library_examples import World

from t2v_lightning import Embedding
from t2v_lightning.library import Protocol, TaskLibrary
from t2v_lightning.library.__main__ import main

LONG = "timm/vit_base_patch16_clip_224.openai_ft_in12k_in1k"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Embeddings of two families, a table of results, and an embedding of a new task."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    world = World(seed=3, noise=0.5, experts=4)
    lines = ["task,expert,error,stderr,protocol"]
    for family, centre in (("birds", world.family()), ("signs", world.family())):
        for number in range(5):
            embedding, errors = world.task(centre, f"{family}_{number}", family)
            embedding.save(Path("tasks", f"{family}_{number}", "embedding.safetensors"))
            names = ("resnet18", "resnet50", "vit", LONG)
            lines += [
                f"{family}_{number},{name},{error},1.5," for name, error in zip(names, errors, strict=True)
            ]
        if family == "birds":
            world.task(centre, "new_birds", "")[0].save(Path("outputs", "new_birds", "embedding.safetensors"))
    Path("results.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(*words: str) -> int:
    try:
        main(list(words))
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def test_from_embeddings_to_advice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "--library", "lib", "tasks", "--results", "results.csv") == 0
    assert capsys.readouterr().out == "lib: 10 tasks, 4 experts, 40 results (probe)\n"
    assert run("recommend", "--library", "lib", "outputs/new_birds", "-k", "4") == 0
    shown = capsys.readouterr().out
    expected = TaskLibrary("lib").recommend(Embedding.load("outputs/new_birds/embedding.safetensors"), k=4)
    written = json.loads(Path("outputs/new_birds/recommendation.json").read_text())
    assert [row["expert"] for row in written["experts"]] == list(expected.experts)
    np.testing.assert_allclose([row["error"] for row in written["experts"]], expected.errors)
    assert written["support"] == pytest.approx(expected.support)
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    for row in written["experts"]:
        cells = [f"{row['error']:.1f}", f"{row['error_low']:.1f} to {row['error_high']:.1f}"]
        cells += [f"{row['regret_low']:.1f} to {row['regret_high']:.1f}", f"{row['best_probability']:.0%}"]
        assert any(all(cell in line for cell in cells) for line in shown.splitlines()), (
            "numbers are never cut"
        )
    assert LONG in expected.experts
    assert "…" not in shown, "nothing is cut"
    assert expected.reason.split(",")[0] in " ".join(shown.split())
    assert run("nearest", "--library", "lib", "outputs/new_birds", "-k", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    near = TaskLibrary("lib").nearest(Embedding.load("outputs/new_birds/embedding.safetensors"), 3)
    assert [line.split()[0] for line in lines[2:]] == [one.name for one in near]


def test_tasks_and_results_are_added_to_what_is_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("build", "--library", "lib", "tasks/birds_0", "tasks/birds_1", "--family", "pets") == 0
    Path("more.csv").write_text("task,expert,error\nsigns_2,vit,30\n")
    assert run("add", "--library", "lib", "tasks/signs_2", "--results", "more.csv") == 0
    library = TaskLibrary("lib")
    assert library.families == {"birds_0": "pets", "birds_1": "pets", "signs_2": "signs"}
    assert [(r.task, r.expert, r.error, r.protocol) for r in library.results] == [
        ("signs_2", "vit", 30.0, Protocol())
    ]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("task,network,error\n", "has the columns task, network, error; needed are task, expert and error"),
        ("task,expert,error\nbirds_0,vit,130\n", "line 2: .*percent"),
        ("task,expert,error\nbirds_9,vit,30\n", "line 2: the library has no task 'birds_9'"),
        ("task,expert,error,protocol\nbirds_0,vit,30,sometimes\n", "line 2: 'sometimes' is no protocol"),
        ("task,expert,error\nbirds_0,vit,30\nbirds_0,vit,31\n", "line 3: .* is there already"),
    ],
)
def test_a_bad_table_changes_nothing(
    table: str, text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("build", "--library", "lib", "tasks/birds_0") == 0
    Path("bad.csv").write_text(table)
    assert run("add", "--library", "lib", "tasks/birds_1", "--results", "bad.csv") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: bad.csv")
    assert said.count("\n") == 1
    assert re.search(text, said)
    assert TaskLibrary("lib").names == ["birds_0"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["build", "tasks/birds_1"], "lib holds a library already; `add` adds to it"),
        (["add"], "there is nothing to add"),
        (["add", "tasks/birds_0"], "has a task 'birds_0' already"),
        (["recommend", "tasks"], "tasks holds 10 embeddings; give one of them"),
        (["recommend", "outputs/new_birds"], "has no results"),
        (["recommend", "outputs/new_birds", "--protocol", "x"], "'x' is no protocol"),
        (["recommend", "outputs/new_birds", "--method", "guess"], "unknown method 'guess'"),
        (["recommend", "outputs/new_birds", "--try", "2"], "--try N runs experts on the images of --dataset"),
        (
            ["recommend", "outputs/new_birds", "--try", "2", "--dataset", "digits", "--method", "static"],
            "--try takes its list by the method library",
        ),
        (["nearest", "missing"], "missing does not exist"),
        (["measure", "--dataset", "digits", "--experts", "resnet19"], "unknown probe 'resnet19'"),
        (
            ["measure", "--dataset", "digits", "--experts", "vit_b_32", "--seeds", "1"],
            "--seeds are of the draws",
        ),
    ],
)
def test_errors_are_one_line(
    words: list[str], text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("build", "--library", "lib", "tasks/birds_0") == 0
    assert run(words[0], "--library", "lib", *words[1:]) == 1
    said = capsys.readouterr().err
    assert text in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not Path("outputs/new_birds/recommendation.json").exists()


def test_a_folder_without_a_library_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nearest", "--library", "tasks", "outputs/new_birds") == 1
    assert capsys.readouterr().err == (
        "error: tasks holds no library; python -m t2v_lightning.library build makes one, and 'builtin' is the one that "
        "comes with the package\n"
    )


def test_measuring_goes_on_where_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Embedding([1.0, 2.0], [1, 1], meta={"task_name": "textures"}).save("textures.safetensors")
    assert run("build", "--library", "lib", "textures.safetensors") == 0
    command = ["measure", "--library", "lib", "--dataset", "textures", "--experts", "efficientnet_lite0"]
    command += ["--images", "2", "--input-size", "32", "--seeds"]
    assert run(*command, "0") == 0
    assert "1 results are new, 0 were there" in capsys.readouterr().out
    first = TaskLibrary("lib").results.get("textures", "efficientnet_lite0", Protocol("probe", 2, 0))
    assert first is not None
    assert 0 <= first.error < 60
    assert run(*command, "0", "1") == 0
    assert "1 results are new, 1 were there" in capsys.readouterr().out
    assert TaskLibrary("lib").protocols == [Protocol("probe", 2, 0), Protocol("probe", 2, 1)]


def test_a_short_list_is_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("efficientnet_lite0", "efficientnet_lite0+digits", "nonesuch")
    for number in range(3):
        embedding = Embedding([1.0 + number, 2.0], [1, 1], meta={"task_name": f"task {number}"})
        embedding.save(f"own/{number}/embedding.safetensors")
    rows = [
        f"task {number},{name},{10 + 5 * j}" for number in range(3) for j, name in enumerate(reversed(names))
    ]
    Path("own.csv").write_text("\n".join(["task,expert,error", *rows]) + "\n")
    assert run("build", "--library", "lib", "own", "--results", "own.csv") == 0
    words = ["--try", "2", "--dataset", "textures", "--input-size", "32"]
    assert run("recommend", "--library", "lib", "own/0", *words) == 0
    said = capsys.readouterr().out
    assert "nonesuch cannot be run: unknown probe 'nonesuch'" in said
    assert "by library and 2 tried" in said
    written = json.loads(Path("own/0/recommendation.json").read_text())
    assert written["tried"].keys() == {*names[:2]}
    assert max(map(len, said.splitlines()[:-2])) <= 80 or "cannot be run" in said


def test_as_a_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "t2v_lightning.library.__main__")
    monkeypatch.setattr(sys, "argv", ["library", "nearest", "--library", "none", "outputs/new_birds"])
    with pytest.raises(SystemExit, match="1"):
        runpy.run_module("t2v_lightning.library", run_name="__main__")
    assert capsys.readouterr().err.startswith(
        "error: none holds no library; python -m t2v_lightning.library build"
    )
