"""What a sweep leaves behind: table, figure, TensorBoard pages."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_examples import HOSTILE, LAYERS, embeddings
from rich.console import Console
from scipy.spatial.distance import pdist as euclidean
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from t2v_lightning import Embedding
from t2v_lightning.embedding.summary import summarise
from t2v_lightning.functional.distances import pdist
from t2v_lightning.report import print_table, task_names, write_report
from t2v_lightning.report.comparison import compare
from t2v_lightning.report.figures import draw_figures
from t2v_lightning.report.page import build_page
from t2v_lightning.report.tables import task_rows, text_rows
from t2v_lightning.report.tensorboard import points_apart


def test_files_and_distances(tmp_path: Path) -> None:
    group = embeddings("digits", "dogs", "faces")
    matrix = write_report(group, tmp_path / "new" / "folder", "jsd")
    folder = tmp_path / "new" / "folder"
    np.testing.assert_allclose(matrix, pdist(group, "jsd"), rtol=1e-12)
    with (folder / "distances.csv").open() as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == rows[0] == ["task", "digits", "dogs", "faces"]
    assert [[float(x) for x in row[1:]] for row in rows[1:]] == matrix.tolist()  # to the last digit
    for name in ("distance_matrix", "dendrogram", "task_map", "stage_profile"):
        with Image.open(folder / f"{name}.png") as picture:
            picture.load()
            assert picture.format == "PNG"
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert any((folder / "tensorboard" / "sweep").glob("events.out.*"))
    points = next((folder / "tensorboard" / "sweep").glob("**/tensors.tsv")).read_text().splitlines()
    labels = next((folder / "tensorboard" / "sweep").glob("**/metadata.tsv")).read_text().splitlines()
    assert [line.split("\t")[:2] for line in labels] == [
        ["task", "family"], ["digits", "d"], ["dogs", "d"], ["faces", "f"]
    ]  # fmt: skip
    vectors = np.array([[float(x) for x in line.split("\t")] for line in points])
    np.testing.assert_allclose(squareform(euclidean(vectors)), matrix, atol=0.005)
    assert not [path for path in folder.iterdir() if ".tmp" in path.name]


def test_the_profiles_of_many_tasks_are_drawn_by_family(tmp_path: Path) -> None:
    names = [f"{family} {number}" for family in ("birds", "plants") for number in range(8)]
    figures = draw_figures(compare(embeddings(*names), "cosine"))
    profile = {name: figure for name, _, figure in figures}["stage_profile"]
    legend = profile.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["b", "p"]


def test_tensorboard_has_the_figures_a_table_and_a_picture_of_each_task(tmp_path: Path) -> None:
    red, broken = tmp_path / "red.png", tmp_path / "broken.png"
    Image.new("RGB", (32, 20), "red").save(red)
    broken.write_bytes(b"no picture")
    write_report(embeddings("digits", "do|gs", "faces"), tmp_path, thumbnails=[red, broken, None])
    log = EventAccumulator(str(tmp_path / "tensorboard" / "sweep"))
    log.Reload()
    shown = ("dendrogram", "distance_matrix", "stage_profile", "task_map")
    assert sorted(log.Tags()["images"]) == [f"distances/{name}" for name in shown]
    with (
        Image.open(io.BytesIO(log.Images("distances/distance_matrix")[0].encoded_image_string)) as picture,
        Image.open(tmp_path / "distance_matrix.png") as file,
    ):
        assert picture.size == file.size
    (table,) = log.Tensors("overview/text_summary")
    lines = table.tensor_proto.string_val[0].decode().splitlines()
    assert lines[0].startswith("| task | family | K | images |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| digits", "| do&#124;gs", "| faces"]
    with Image.open(next(tmp_path.glob("tensorboard/sweep/**/sprite.png"))) as sprite:
        assert sprite.size == (192, 192)
        found = [sprite.convert("RGB").getpixel(place) for place in ((48, 48), (144, 48), (48, 144))]
    assert found == [(255, 0, 0), *[(211, 211, 211)] * 2]


@pytest.mark.usefixtures("unpainted")
def test_a_report_can_be_written_again(tmp_path: Path) -> None:
    write_report(embeddings("a", "b"), tmp_path)
    write_report(embeddings("a", "b", "c"), tmp_path)
    assert len((tmp_path / "distances.csv").read_text().splitlines()) == 4
    assert len(list((tmp_path / "tensorboard" / "sweep").glob("events.out.*"))) == 1


@pytest.mark.usefixtures("unpainted")
def test_other_logs_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    """A folder of one's own may hold TensorBoard logs already, of a training say."""
    mine = tmp_path / "tensorboard" / "my_run" / "events.out.tfevents.1.host"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"hours of work")
    write_report(embeddings("a", "b"), tmp_path)
    assert mine.read_bytes() == b"hours of work"


def test_names_are_numbered_where_they_meet() -> None:
    assert task_names(embeddings("a", "b", "a", "a")) == ["a", "b", "a (2)", "a (3)"]
    nameless = Embedding([1.0], [1.0])
    assert task_names([nameless, nameless]) == ["task", "task (2)"]


def test_the_table_names_the_nearest_task_of_each() -> None:
    group = embeddings("digits", "dogs", "faces", "flags")
    matrix = pdist(group)
    text = io.StringIO()
    print_table(group, matrix, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    rows = {words[0]: words for line in lines if (words := line.split()) and words[0] in task_names(group)}
    assert list(rows) == ["digits", "dogs", "faces", "flags"]
    nearest = {name: row[-2] for name, row in rows.items()}
    assert nearest == {"digits": "dogs", "dogs": "digits", "faces": "flags", "flags": "faces"}
    assert float(rows["digits"][-1]) == pytest.approx(matrix[0, 1], abs=5e-4)
    assert rows["flags"][1:4] == ["3", "103", "87.5%"]


def test_of_the_variational_method_the_table_shows_the_accuracy_under_noise() -> None:
    """That of the head, before there was noise, would look like success; a standard error it has not."""
    noisy = [
        Embedding(
            e.fisher, e.scale, meta={**e.meta, "method": "variational", "variational": {"accuracy": share}}
        )
        for e, share in zip(embeddings("a", "b"), (0.25, 0.5), strict=True)
    ]
    for group, shown, hidden in (
        (noisy, "under noise", "stderr"),
        (embeddings("a", "b"), "stderr", "under noise"),
    ):
        header = text_rows(task_rows(group, pdist(group)))[0]
        assert shown in header
        assert hidden not in header
    known = [
        Embedding(1e9 * e.fisher, e.scale, meta={**e.meta, "task_name": name, "test": {"accuracy": 0.5}})
        for name, e in zip(("digits_odd_even", "textures_ground"), noisy, strict=True)
    ]
    text = io.StringIO()
    print_table(known, pdist(known), Console(file=text, width=80))
    assert "…" not in text.getvalue()
    header, *lines = text_rows(task_rows(noisy, pdist(noisy)))
    assert [line[header.index("under noise")] for line in lines] == ["25.0%", "50.0%"]
    assert {len(line) for line in lines} == {len(header)}
    assert '"under_noise":0.25' in build_page(compare(noisy))


def test_the_number_of_images_or_texts_has_a_column_of_its_name() -> None:
    texts, images = embeddings("mails", "news", texts_cut_off=0), embeddings("dogs")
    for group, word in ((texts, "texts"), (images * 2, "images"), ([*texts, *images], "items")):
        header = text_rows(task_rows(group, pdist(group)))[0]
        assert [name for name in header if name in ("texts", "images", "items")] == [word]
        page = build_page(compare(group))
        assert f"<dt>{word.capitalize()}</dt>" in page
        assert f'"items":"{word}","tasks"' in page
        text = io.StringIO()
        print_table(group, pdist(group), Console(file=text, width=80))
        assert " N " in text.getvalue().splitlines()[1]


def test_tasks_are_shown_by_the_measure_of_their_likelihood() -> None:
    """A share of explained variance is no accuracy, least of all one of -99595 %."""
    ages = embeddings("ages", "depths", likelihood="gaussian", head={"accuracy": -0.5})
    mixed = [*ages, *embeddings("cats")]
    for group, header, cells in (
        (ages, "train R^2", ["-0.500", "-0.500"]),
        (mixed, "train fit", ["R^2 -0.500", "R^2 -0.500", "accuracy 87.5%"]),
        (embeddings("tags", "toys", likelihood="bernoulli"), "train right labels", ["87.5%", "87.5%"]),
    ):
        titles, *lines = text_rows(task_rows(group, pdist(group)))
        assert [line[titles.index(header)] for line in lines] == cells
        assert not any("accuracy" in title for title in titles)
    assert '"measure":"R^2","accuracy":-0.5,"accuracy_text":"-0.500"' in build_page(compare(ages))


def test_accuracy_says_of_which_images_it_is() -> None:
    """In a table as wide as the terminal, in the page and in a figure."""
    seen, unknown = {"images": 50, "accuracy": 0.625, "loss": 1.0}, {"images": 50, "loss": 1.0}
    group = embeddings("digits_odd_even", "dogs", "textures_ground", test=seen) + embeddings("flags")
    comparison = compare(group)
    header, *lines = text_rows(task_rows(group, comparison.matrix))
    places = [header.index(name) for name in ("train accuracy", "test accuracy")]
    assert [[line[i] for i in places] for line in lines] == [["87.5%", "62.5%"]] * 3 + [["87.5%", ""]]
    text = io.StringIO()
    print_table(group, comparison.matrix, Console(file=text, width=80))
    assert max(map(len, text.getvalue().splitlines())) <= 80
    above, below = (line.split() for line in text.getvalue().splitlines()[:2])
    assert (above.count("train"), above.count("test"), below.count("accuracy")) == (1, 1, 2)
    assert below[-3:] == ["stderr", "nearest", "distance"]
    page = build_page(comparison)
    assert page.count('"test":0.625,"test_text":"62.5%"') == 3
    assert page.count('"test":null,"test_text":""') == 1
    names = [name for name, _, _ in draw_figures(comparison)]
    assert "norm_vs_error" in names
    for without in (embeddings("a", "b", "c"), embeddings("a", "b", "c", test=unknown)):
        assert not any(title.startswith("test") for title in text_rows(task_rows(without, pdist(without)))[0])
        assert "norm_vs_error" not in [name for name, _, _ in draw_figures(compare(without))]


def test_the_figure_of_errors_shows_what_is_known_by_one_measure() -> None:
    many = {"likelihood": "bernoulli", "test": {"images": 9, "average_precision": 0.75, "right_labels": 0.99}}
    tags, cats = embeddings("tags", "toys", **many), embeddings("cats", test={"accuracy": 0.5})
    (figure,) = (figure for name, _, figure in draw_figures(compare(tags)) if name == "norm_vs_error")
    (ax, *_) = figure.axes
    assert ax.get_ylabel() == "1 - mean AP on test images"
    assert sorted(ax.collections[0].get_offsets()[:, 1]) == [0.25, 0.25]
    assert "norm_vs_error" not in [name for name, _, _ in draw_figures(compare([*tags, *cats]))]


def test_a_regression_of_the_first_version_is_shown_by_what_its_losses_say() -> None:
    """It kept 1 - squared error under the name of accuracy."""
    head = {"method": "adam", "accuracy": -79.0, "loss": 40.0, "constant_loss": 100.0}
    noise = {"epochs": 2, "num_samples": 9, "beta": 1e-7, "kl": 5.0, "loss": 51.0, "accuracy": -99.0}
    old = embeddings(
        *("ages", "depths"), likelihood="gaussian", head=head, variational={**noise, "cross_entropy": 50.0}
    )
    titles, *lines = text_rows(task_rows(old, pdist(old)))
    assert [line[titles.index("train R^2")] for line in lines] == ["0.600", "0.600"]
    assert [line[titles.index("under noise")] for line in lines] == ["0.500", "0.500"]
    summary = summarise(old[0])
    assert "adam: R^2 0.600 on these images, loss 40" in summary
    assert "under noise | R^2 0.500, cross-entropy 50" in summary


def test_names_of_any_length_do_not_lose_the_distance() -> None:
    """A table as wide as the terminal keeps its numbers whole."""
    group = embeddings("a" * 30, "b" * 30)
    text = io.StringIO()
    matrix = pdist(group)
    print_table(group, matrix, Console(file=text, width=80))
    assert f"{matrix[0, 1]:.3f}" in text.getvalue()


@pytest.mark.parametrize("count", [0, 1])
def test_one_embedding_has_no_distances(count: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"at least two embeddings, got {count}"):
        write_report(embeddings("a")[:count], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_embeddings_of_different_probes_leave_no_half_report(tmp_path: Path) -> None:
    one, two = embeddings("a", "b")
    other = Embedding(two.fisher, two.scale, layers=LAYERS, meta={**two.meta, "probe_digest": "q"})
    with pytest.raises(ValueError, match="cannot be compared"):
        write_report([one, other], tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_distance_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"euclidean.*cosine"):
        write_report(embeddings("a", "b"), tmp_path, "euclidean")


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_hostile_names_are_text_in_tables_and_logs(tmp_path: Path) -> None:
    group = embeddings(*HOSTILE)
    write_report(group, tmp_path)
    with (tmp_path / "distances.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == rows[0][1:] == HOSTILE
    labels = next((tmp_path / "tensorboard" / "sweep").glob("**/metadata.tsv")).read_text(encoding="utf-8")
    assert len(labels.split("\n")) == len(HOSTILE) + 2  # the names, a header, and the end of the last line
    text = io.StringIO()
    print_table(group, pdist(group), Console(file=text, width=300))
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[3]):
        assert name in text.getvalue()


def test_names_in_brackets_are_whole_in_the_terminal() -> None:
    text = io.StringIO()
    group = embeddings("[iNat] Fabales (magnoliopsida)", "[CUB] Corvidae (aves)")
    print_table(group, pdist(group), Console(file=text, width=200))
    assert text.getvalue().count("[iNat] Fabales (magnoliopsida)") == 2


def test_floors_are_known_task_by_task_and_never_of_asymmetric_distances() -> None:
    group = embeddings("digits", "dogs", "faces", grouped=True)
    few = group[1].with_meta()
    few.group_weights[1:] = 0
    floors = compare([group[0], few, group[2]]).floors
    assert floors is not None
    assert np.isnan(floors).tolist() == [False, True, False]
    assert compare(group, "asymmetric", trivial=group[0]).floors is None
    assert compare(embeddings("a", "b")).floors is None


def test_points_of_the_projector_keep_the_neighbours_of_a_matrix_below_zero() -> None:
    generator = np.random.default_rng(0)
    matrix = generator.random((6, 6)) - 0.3
    mean = (matrix + matrix.T) / 2
    points = points_apart(matrix)
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    for distances in (apart, mean):
        np.fill_diagonal(distances, np.inf)
    upper = np.triu_indices(6, 1)
    assert spearmanr(apart[upper], mean[upper]).statistic > 0.95


def test_names_that_nobody_sees_or_a_terminal_obeys(tmp_path: Path) -> None:
    group = embeddings("digits", " ", "\x1b[31mred", "half \ud800", grouped=True)
    matrix = write_report(group, tmp_path)
    text = io.StringIO()
    print_table(group, matrix, Console(file=text, width=80))
    assert "\x1b" not in text.getvalue()
    assert (tmp_path / "report.html").exists()
