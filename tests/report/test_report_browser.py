"""The page in a real browser: sorting, search, hover, neighbours, downloads, hostile names."""

import csv
import dataclasses
import functools
import re
import shutil
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from report_examples import HOSTILE, embeddings

from t2v_lightning.report import Comparison, compare
from t2v_lightning.report.page import build_page
from t2v_lightning.report.writing import write_comparison

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
from selenium.webdriver import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the path"),
]
Page = Callable[[Comparison], Any]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update", "window-size=1400,1000",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.downloads = downloads
    yield driver
    driver.quit()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Page]:
    """Write a report, open its page, and find no complaint of the browser at the end."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()

    def open_page(comparison: Comparison) -> Any:
        if not (tmp_path / "report.html").exists():
            (tmp_path / "report.html").write_text(build_page(comparison), encoding="utf-8")
        browser.get_log("browser")
        browser.get(f"http://127.0.0.1:{server.server_port}/report.html")
        return browser

    yield open_page
    complaints = [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
    requested = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    server.shutdown()
    assert complaints == []
    assert [name for name in requested if not name.startswith("data:")] == []


def texts(browser: Any, selector: str) -> list[str]:
    return [node.text for node in browser.find_elements(By.CSS_SELECTOR, selector) if node.is_displayed()]


def column(browser: Any, number: int) -> list[str]:
    return texts(browser, f"#table tbody td:nth-child({number})")


def group(count: int, **meta: Any) -> Comparison:
    names = [f"{'abcdefgh'[i % 8]} task {i}" for i in range(count)]
    return compare(embeddings(*names, grouped=True, **meta))


def test_the_table_sorts(show: Page) -> None:
    comparison = group(9)
    browser = show(comparison)
    heads = {
        head.text.split()[0]: head for head in browser.find_elements(By.CSS_SELECTOR, "#table th button")
    }
    assert column(browser, 1) == comparison.names
    heads["Norm"].click()
    order = sorted(range(9), key=lambda i: comparison.embeddings[i].norm)
    assert column(browser, 1) == [comparison.names[i] for i in order]
    heads["Norm"].click()
    assert column(browser, 1) == [comparison.names[i] for i in order[::-1]]
    (sorted_head,) = browser.find_elements(By.CSS_SELECTOR, "th[aria-sort]")
    assert sorted_head.get_attribute("aria-sort") == "descending"
    heads["Task"].click()
    assert column(browser, 1) == sorted(comparison.names)


def test_search_filters_and_enter_chooses(show: Page) -> None:
    browser = show(group(24))
    box = browser.find_element(By.ID, "search")
    box.send_keys("task B")  # any case, any order
    assert column(browser, 1) == ["b task 1", "b task 9", "b task 17"]
    assert browser.find_element(By.ID, "found").text == "3 of 24"
    assert len(browser.find_elements(By.CSS_SELECTOR, "#rows div:not(.dim)")) == 3
    box.send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "chosen").text.startswith("b task")
    box.send_keys(Keys.ESCAPE)
    assert len(column(browser, 1)) == 24
    box.send_keys("nothing like it")
    assert column(browser, 1) == []


@pytest.mark.parametrize("count", [5, 50, 232])
def test_hover_tells_the_pair_under_the_pointer(show: Page, count: int) -> None:
    comparison = group(count)
    browser = show(comparison)
    cells = browser.find_element(By.ID, "cells")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cells)
    size = int(cells.get_attribute("data-size"))
    visible = min(count, 400 // size) // 2
    row, other = count // 2 - max(1, visible // 3), count // 2 + visible // 3
    middle = (count / 2) * size
    x, y = round((other + 0.5) * size - middle), round((row + 0.5) * size - middle)
    ActionChains(browser).move_to_element_with_offset(cells, x, y).perform()
    i, j = comparison.order[row], comparison.order[other]
    tip = browser.find_element(By.ID, "tip").text
    value, pair, rank = tip.splitlines()[:3]
    assert float(value) == pytest.approx(comparison.matrix[i, j], abs=6e-3 * comparison.matrix.max())
    assert pair == f"{comparison.names[i]} and {comparison.names[j]}"
    expected = sum(d < comparison.matrix[i, j] for k, d in enumerate(comparison.matrix[i]) if k != i) + 1
    assert rank == f"Neighbour {expected} of {count - 1} of the first"
    ActionChains(browser).click().perform()
    assert browser.find_element(By.ID, "chosen").text == comparison.names[i]
    ActionChains(browser).move_to_element(browser.find_element(By.ID, "chosen")).perform()
    assert not browser.find_element(By.ID, "tip").is_displayed()


def test_the_arrow_keys_walk_over_the_matrix(show: Page) -> None:
    comparison = group(9)
    browser = show(comparison)
    browser.find_element(By.ID, "cells").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    first, second = (comparison.names[i] for i in comparison.order[1:3])
    assert f"{first} and {second}" in browser.find_element(By.ID, "tip").text
    browser.find_element(By.ID, "cells").send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "chosen").text == first


def test_every_control_is_reached_by_the_keyboard(show: Page, tmp_path: Path) -> None:
    comparison = group(9)
    write_comparison(comparison, tmp_path)
    browser = show(comparison)
    browser.execute_script("document.body.focus()")
    reached = []
    for _ in range(60):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        at = browser.switch_to.active_element
        if at.tag_name == "body":
            break
        reached.append(at.get_attribute("id") or at.text or at.tag_name)
        outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", reached
    expected = {
        "search",
        "order",
        "smaller",
        "fit",
        "larger",
        "cells",
        "download-table",
        "How to read this page",
    }
    assert expected | {"Norm", "img"} <= set(reached)


def test_the_arrow_keys_walk_over_the_table(show: Page) -> None:
    comparison = group(9)
    browser = show(comparison)
    stops = browser.find_elements(By.CSS_SELECTOR, "#table tbody tr[tabindex='0']")
    assert len(stops) == 1
    browser.execute_script("arguments[0].focus()", stops[0])
    ActionChains(browser).send_keys(Keys.HOME, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER).perform()
    assert browser.find_element(By.ID, "chosen").text == comparison.names[2]
    ActionChains(browser).send_keys(Keys.END, Keys.ARROW_UP, Keys.ENTER).perform()
    assert browser.find_element(By.ID, "chosen").text == comparison.names[7]


def alpha(browser: Any, canvas: str) -> Any:
    """Opacities [height, width] of a canvas, 0 to 255."""
    side, pixels = browser.execute_script(
        "const c = document.getElementById(arguments[0]);"
        "return [c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.width).data]]",
        canvas,
    )
    return np.array(pixels).reshape(side, side, 4)[..., 3]


def test_a_search_fades_cells_that_have_no_part_in_it(show: Page) -> None:
    comparison = group(9)
    browser = show(comparison)
    key = browser.find_element(By.ID, "key-faded")
    assert not key.is_displayed()
    browser.find_element(By.ID, "search").send_keys("a task 0")
    found = np.array([comparison.names[i] == "a task 0" for i in comparison.order])
    expected = np.where(found[:, None] | found[None], 255, 50) * (1 - np.eye(9))
    assert (alpha(browser, "canvas") == expected).all()
    assert key.is_displayed()
    faded = len(browser.find_elements(By.CSS_SELECTOR, "#numbers .faded"))
    assert faded == np.count_nonzero(~(found[:, None] | found[None]))


def test_pairs_within_the_noise_have_a_dot(show: Page) -> None:
    comparison = group(24)
    browser = show(comparison)
    floors, order = np.asarray(comparison.floors), comparison.order
    near = (comparison.matrix <= np.maximum.outer(floors, floors))[np.ix_(order, order)] & ~np.eye(
        24, dtype=bool
    )
    marks = alpha(browser, "marks")
    size = len(marks) // 24
    drawn = marks[size // 2 :: size, size // 2 :: size][:24, :24] > 0
    assert near.any()
    assert (drawn == near).all()


def test_a_warning_marks_its_task(show: Page) -> None:
    comparison = group(9)
    comparison.embeddings[3].meta["head"] = {"accuracy": 0.1, "loss": 3.0, "constant_loss": 1.1}
    browser = show(comparison)
    marked = browser.find_elements(By.CSS_SELECTOR, "#rows div:has(.warned)")
    assert [node.get_attribute("data-task") for node in marked] == ["3"]
    marked[0].click()
    assert "constant guess" in browser.find_element(By.ID, "warnings").text


def test_wide_numbers_fit(show: Page) -> None:
    comparison = group(5)
    browser = show(
        dataclasses.replace(comparison, matrix=comparison.matrix * 293562398623008960.0, floors=None)
    )
    assert max(map(len, texts(browser, "#numbers span"))) <= 7
    for node in browser.find_elements(By.CSS_SELECTOR, "#numbers span"):
        assert browser.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", node)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(show: Page, scheme: str) -> None:
    browser = show(group(9))
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) > 0.5) == (scheme == "light")
    for selector in ("h1", "#settings dt", "#key", "#rows div:not(.on)", "#found", "td", "summary"):
        ink = browser.execute_script(
            "return getComputedStyle(document.querySelector(arguments[0])).color", selector
        )
        light, dark = sorted((luminance(ground), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5, selector  # WCAG 2.1, contrast (minimum)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def luminance(colour: str) -> float:
    """The relative luminance of `rgb(...)`, as WCAG 2.1 defines it."""
    share = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_neighbours_are_sorted_and_lead_on(show: Page) -> None:
    comparison = group(24)
    browser = show(comparison)
    browser.find_element(By.CSS_SELECTOR, "#table tbody tr[data-task='3']").click()
    assert browser.find_element(By.ID, "chosen").text == comparison.names[3]
    order = [i for i in comparison.matrix[3].argsort() if i != 3]
    assert texts(browser, "#neighbours .name") == [comparison.names[i] for i in order[:10]]
    shown = [float(text) for text in texts(browser, "#neighbours .number")]
    assert shown == pytest.approx([comparison.matrix[3, i] for i in order[:10]], abs=1e-3)
    browser.find_element(By.ID, "more").click()
    assert len(texts(browser, "#neighbours li")) == 23
    browser.find_element(By.CSS_SELECTOR, "#neighbours button").click()
    assert browser.find_element(By.ID, "chosen").text == comparison.names[order[0]]


def test_the_order_and_the_size_of_the_matrix(show: Page) -> None:
    comparison = group(24)
    browser = show(comparison)
    assert texts(browser, "#rows div") == [comparison.names[i] for i in comparison.order]
    Select(browser.find_element(By.ID, "order")).select_by_visible_text("by name")
    in_order = texts(browser, "#rows div")
    assert in_order[:3] == ["a task 0", "a task 8", "a task 16"]
    pixels = browser.execute_script(
        "return [...document.getElementById('canvas').getContext('2d').getImageData(0, 0, 24, 24).data]"
    )
    drawn = np.array(pixels).reshape(24, 24, 4)
    assert (drawn == drawn.swapaxes(0, 1)).all()
    assert len(np.unique(drawn.reshape(-1, 4), axis=0)) > 20
    width = browser.find_element(By.ID, "cells").size["width"]
    browser.find_element(By.ID, "larger").click()
    assert browser.find_element(By.ID, "cells").size["width"] > 1.3 * width
    browser.find_element(By.ID, "fit").click()
    assert browser.find_element(By.ID, "cells").size["width"] == width


def saved(browser: Any, name: str) -> list[list[str]]:
    path = browser.downloads / name
    WebDriverWait(browser, 20).until(lambda _: path.exists() and path.stat().st_size)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    path.unlink()
    return rows


def test_downloads(show: Page) -> None:
    comparison = compare(embeddings(*HOSTILE, grouped=True), "asymmetric_kl")
    browser = show(comparison)
    browser.find_element(By.ID, "download-distances").click()
    rows = saved(browser, "distances.csv")
    assert [row[0] for row in rows[1:]] == rows[0][1:] == HOSTILE
    written = [[float(value) for value in row[1:]] for row in rows[1:]]
    assert written == pytest.approx(comparison.matrix, rel=1e-8)
    browser.find_element(By.ID, "download-table").click()
    rows = saved(browser, "tasks.csv")
    assert rows[0][:3] == ["Task", "Family", "Classes"]
    assert [row[0] for row in rows[1:]] == HOSTILE


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_hostile_names_stay_text(show: Page) -> None:
    browser = show(compare(embeddings(*HOSTILE, family=HOSTILE[1], taxon={HOSTILE[0]: HOSTILE[1]})))
    for row in browser.find_elements(By.CSS_SELECTOR, "#table tbody tr"):
        row.click()
    browser.find_element(By.ID, "search").send_keys(HOSTILE[0], Keys.ENTER)
    time.sleep(0.2)
    assert browser.execute_script("return window.owned") is None
    assert browser.find_element(By.ID, "chosen").text == HOSTILE[0]
    assert browser.execute_script("return document.querySelectorAll('script').length") == 2
    assert len(browser.find_elements(By.CSS_SELECTOR, "img:not(figure img)")) == 0
    names = [
        node.get_attribute("textContent") for node in browser.find_elements(By.CSS_SELECTOR, "#rows div")
    ]
    assert sorted(names) == sorted(HOSTILE)


def test_nothing_overflows_the_window_and_figures_open(show: Page, tmp_path: Path) -> None:
    comparison = group(50, taxon={"class": "Aves", "order": "Passeriformes"})
    write_comparison(comparison, tmp_path)
    browser = show(comparison)
    for width in (390, 500, 1000, 1600):
        browser.set_window_size(width, 900)
        overflow = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, width
    browser.set_window_size(500, 900)
    picture = browser.find_element(By.CSS_SELECTOR, "figure img")
    height = picture.size["height"]
    assert 100 < height <= 900
    browser.execute_script("arguments[0].click()", picture)
    assert picture.size["height"] > height
    browser.set_window_size(1400, 1000)
