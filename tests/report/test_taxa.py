"""The taxa of tasks: looked up by name, drawn as icons, and reported on."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_taxa import write_icons
from PIL import Image
from report_examples import BEAN, CROW, FROG, SNAIL, TAXA, embeddings

from t2v_lightning import Embedding
from t2v_lightning.data.benchmarks.known_taxa import known_taxa
from t2v_lightning.data.errors import AnnotationError, MissingDataError
from t2v_lightning.report.__main__ import main
from t2v_lightning.report.taxa import (
    find_icons,
    load_icons,
    task_order,
    with_taxa,
)


def bare(name: str, task_id: int) -> Embedding:
    """As the reference implementation leaves it: a name, and the number among the settings of the dataset."""
    meta = {"task_name": name, "dataset": {"name": "cub_inat2018", "task_id": task_id}}
    return Embedding(1 + np.arange(12) % (2 + task_id % 5), np.ones(12), meta=meta)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "inat2018").mkdir()
    names = ("Corvus corax", "Bubo bubo", "Rana", "Helix", "Vicia")
    taxa = [
        {"id": i, "name": n, "family": f"Family{i}", **t}
        for i, (n, t) in enumerate(zip(names, TAXA, strict=True))
    ]
    (tmp_path / "inat2018" / "categories.json").write_text(json.dumps(taxa))
    return tmp_path


def test_names_are_looked_up_where_the_taxon_is_not_carried(root: Path) -> None:
    found = with_taxa([bare("Fabales", 30), bare("Corvidae", 15), bare("Apodiformes", 2)], root)
    assert [e.task_name for e in found] == [
        "[CUB] Apodiformes (aves)",
        "[CUB] Corvidae (aves)",
        "[iNat] Fabales (magnoliopsida)",
    ]
    assert found[1].meta["taxon"]["order"] == "Passeriformes"
    assert [e.meta["family"] for e in found] == ["Aves", "Aves", "Magnoliopsida"]


def test_the_order_of_tasks_is_that_of_their_numbers() -> None:
    jobs = [bare("Fabales", 30), bare("Corvidae", 15), bare("Apodiformes", 2)]
    assert task_order(jobs) == [2, 1, 0]
    assert task_order([jobs[0], *embeddings("x")]) == [0, 1]


def test_names_of_other_datamodules_and_of_ours() -> None:
    corvids, crows, bean = embeddings("[CUB] Corvidae (aves)", "Corvidae", "Fabales", taxon=CROW)
    mine = [
        Embedding(e.fisher, e.scale, meta={**e.meta, "task_name": e.task_name, "dataset": name, "taxon": taxon})
        for e, name, taxon in (
            (corvids, "cub_inat2018", CROW), (crows, "cub200", CROW), (bean, "inat2018", BEAN),
        )
    ]  # fmt: skip
    names = [e.task_name for e in with_taxa(mine)]
    assert names == ["[CUB] Corvidae (aves)", "[CUB] Corvidae (aves)", "[iNat] Fabales (magnoliopsida)"]


def test_taxa_that_are_not_known(root: Path) -> None:
    with pytest.raises(ValueError, match=r"the taxon of 1 tasks is not known: Fabales\. Give --data-root"):
        with_taxa([bare("Fabales", 30), bare("Corvidae", 15)])
    with pytest.raises(ValueError, match=r"the taxon of 1 tasks is not known: digits\.$"):
        with_taxa([bare("digits", 30)], root)
    with pytest.raises(MissingDataError, match=r"categories\.json does not exist: run scripts/download_inat"):
        known_taxa(root / "inat2018")
    (root / "inat2018" / "categories.json").write_text('[{"order"')
    with pytest.raises(AnnotationError, match="cannot read"):
        known_taxa(root)


def test_icons_by_class_phylum_kingdom_unknown(tmp_path: Path) -> None:
    for number, name in enumerate(("aves", "mollusca", "animalia", "unknown")):
        Image.new("RGB", (4, 4), (10 * number, 0, 0)).save(tmp_path / f"{name}-200px.png")
    tasks = [
        Embedding([1.0], [1.0], meta={"task_name": f"[iNat] {i}", "taxon": taxon})
        for i, taxon in enumerate([CROW, SNAIL, FROG, BEAN, {"class": "../aves"}])
    ]
    reds = [round(float(icon[0, 0, 0]) * 25.5) for icon in load_icons(tasks, tmp_path) if icon is not None]
    assert reds == [0, 1, 2, 3, 3]
    (tmp_path / "unknown-200px.png").unlink()
    assert [icon is None for icon in load_icons(tasks, tmp_path)] == [False, False, False, True, True]


def test_icons_lie_on_white_and_are_inverted_for_cub(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (2, 1))
    picture.putpixel((0, 0), (255, 0, 0, 255))
    picture.save(tmp_path / "aves-200px.png")
    tasks = [Embedding([1.0], [1.0], meta={"task_name": f"[{s}] x", "taxon": CROW}) for s in ("iNat", "CUB")]
    mine, inverted = load_icons(tasks, tmp_path)
    assert mine is not None
    assert inverted is not None
    assert mine.tolist() == [[[1, 0, 0], [1, 1, 1]]]
    assert inverted.tolist() == [[[0, 1, 1], [0, 0, 0]]]


def test_where_icons_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_icons([], None, tmp_path / "data") is None
    (tmp_path / "static" / "iconic_taxa").mkdir(parents=True)
    assert find_icons([], None, None) == []
    with pytest.raises(FileNotFoundError, match="mine does not exist; --icons takes a folder"):
        find_icons([], tmp_path / "mine", None)


def test_the_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_icons(tmp_path / "icons")
    for number, (name, taxon) in enumerate(
        zip(("Corvidae", "Strigiformes", "Anura", "Fabales"), [*TAXA[:3], BEAN], strict=True)
    ):
        embedding = bare(name, 12 * number)
        folder = tmp_path / "sweep" / str(3 - number)
        meta = {**embedding.meta, **({"taxon": taxon} if number % 2 else {})}
        Embedding(embedding.fisher, embedding.scale, meta=meta).save(folder / "embedding.safetensors")
    main([
        "--taxonomy", "--data-root", str(root), "--icons", str(tmp_path / "icons"), "--max-tasks", "3",
        "--distance", "jsd", str(tmp_path / "sweep"),
    ])  # fmt: skip
    with (tmp_path / "sweep" / "distances.csv").open() as file:
        names = next(csv.reader(file))[1:]
    assert names == ["[CUB] Corvidae (aves)", "[CUB] Strigiformes (aves)", "[CUB] Anura (amphibia)"]
    with (tmp_path / "sweep" / "taxonomy_curve.csv").open() as file:
        rows = [[float(value) for value in row.values()] for row in csv.DictReader(file)]
    assert [row[0] for row in rows] == [1, 2]
    assert rows[-1][1:] == pytest.approx([5 / 3] * 3)
    assert rows[0][2] == pytest.approx(4 / 3)  # crow and owl share a class, the frog a phylum with both
    for name in ("distance_matrix.png", "distance_matrix.pdf", "taxonomy_curve.png", "taxonomy_curve.pdf"):
        assert (tmp_path / "sweep" / name).stat().st_size > 1000
    assert "[CUB] Corvidae (aves)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--icons", str(tmp_path / "icons"), str(tmp_path / "sweep")])
    assert capsys.readouterr().err.startswith("error: --data-root and --icons belong to --taxonomy")
