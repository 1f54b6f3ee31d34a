"""Taxonomic distances, curves over neighbourhoods, names, icons, and the command that puts them together."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_taxa import write_icons
from matplotlib.colors import to_rgb
from PIL import Image
from report_examples import embeddings

from t2v_lightning import Embedding
from t2v_lightning.data.benchmarks.known_taxa import known_taxa
from t2v_lightning.data.errors import AnnotationError, MissingDataError
from t2v_lightning.report.__main__ import main
from t2v_lightning.report.taxonomy import (
    chance,
    find_icons,
    load_icons,
    neighbourhood_curve,
    plot_neighbourhoods,
    task_order,
    taxonomic_distances,
    with_taxa,
)

CROW = {"kingdom": "Animalia", "phylum": "Chordata", "class": "Aves", "order": "Passeriformes"}
OWL = {**CROW, "order": "Strigiformes"}
FROG = {**CROW, "class": "Amphibia", "order": "Anura"}
SNAIL = {**CROW, "phylum": "Mollusca", "class": "Gastropoda", "order": "Stylommatophora"}
BEAN = {"kingdom": "Plantae", "phylum": "Tracheophyta", "class": "Magnoliopsida", "order": "Fabales"}
TAXA = [CROW, OWL, FROG, SNAIL, BEAN]


def test_taxonomic_distances() -> None:
    shouting = {rank: name.upper() for rank, name in CROW.items()}
    found = taxonomic_distances([*TAXA, shouting])
    assert found[0].tolist() == [0, 1, 2, 3, 4, 0]
    assert found[2].tolist() == [2, 2, 0, 3, 4, 2]
    np.testing.assert_array_equal(found, found.T)


def test_a_rank_that_is_not_known_is_shared_with_nobody() -> None:
    classless = {"kingdom": "Animalia", "phylum": "Chordata"}
    nameless = {**classless, "class": ""}
    assert taxonomic_distances([classless, classless, nameless, nameless, {}])[2].tolist() == [2, 2, 0, 2, 4]


def test_curves_are_averages_over_the_nearest() -> None:
    """Against plain loops."""
    generator = np.random.default_rng(0)
    matrix = generator.random((12, 12))
    taxonomic = taxonomic_distances([TAXA[i % 5] for i in range(12)])
    expected = []
    for k in range(1, 12):
        means = []
        for i in range(12):
            others = sorted((j for j in range(12) if j != i), key=lambda j: matrix[i, j])
            means.append(sum(taxonomic[i, j] for j in others[:k]) / k)
        expected.append(sum(means) / 12)
    np.testing.assert_allclose(neighbourhood_curve(matrix, taxonomic), expected)
    # everybody is a neighbour at the end, whoever is near
    assert expected[-1] == pytest.approx(chance(taxonomic))
    best = neighbourhood_curve(taxonomic, taxonomic)
    assert (best <= np.array(expected) + 1e-12).all()


def test_chance_is_what_random_neighbours_have() -> None:
    generator = np.random.default_rng(0)
    taxonomic = taxonomic_distances([TAXA[i % 5] for i in range(12)])
    curves = [neighbourhood_curve(generator.random((12, 12)), taxonomic) for _ in range(400)]
    np.testing.assert_allclose(np.mean(curves, axis=0), chance(taxonomic), atol=0.05)


def test_the_figure_of_curves() -> None:
    figure = plot_neighbourhoods({"embedding": np.arange(4.0), "taxonomy": np.ones(4)}, 2.5)
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines] == ["embedding", "taxonomy", "chance"]
    assert np.asarray(ax.lines[0].get_xdata()).tolist() == [1, 2, 3, 4]
    assert np.asarray(ax.lines[2].get_ydata()).tolist() == [2.5, 2.5]
    assert to_rgb(ax.lines[0].get_color()) != to_rgb(ax.lines[1].get_color())


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
    with pytest.raises(MissingDataError, match=r"categories\.json is not there; run scripts/download_inat"):
        known_taxa(root / "inat2018")
    (root / "inat2018" / "categories.json").write_text('[{"order"')
    with pytest.raises(AnnotationError, match="Cannot read"):
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
    with pytest.raises(FileNotFoundError, match="mine is not there; --icons takes a folder"):
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
