"""The page in a real browser: it sorts, slides, toggles and zooms, asks no network, and is readable by everyone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.reports.page.conftest import GAINS

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is on the PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def opened(browser: Any, page: Path) -> Any:
    """The page, with the requests and console messages that it made."""
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    tab.requests, tab.complaints = [], []
    tab.on("request", lambda request: tab.requests.append(request.url))
    tab.on("console", lambda message: tab.complaints.append(message.text))
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.goto(page.as_uri())
    return tab


def names(tab: Any) -> list[str]:
    heads = tab.locator("#table .sortable").first.locator("tbody th")
    return [text.split(" ")[0].strip() for text in heads.all_inner_texts()]


def test_tables_sort_by_numbers_and_by_names(opened: Any) -> None:
    order = [name.split(" ")[0] for name in GAINS]
    assert names(opened) == [*order[:2], "dreambooth", order[3]]
    head = opened.locator("#table th", has_text="difference from null").first
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert names(opened) == ["dreambooth", "simple", order[3], "null"]
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(opened) == [order[3], "simple", "dreambooth", "null"]


def test_the_viewer_shows_each_row_zooms_and_slides_by_keyboard(opened: Any) -> None:
    stage, over = opened.locator(".stage"), opened.locator(".over")
    rows = opened.locator("input[name=right]")
    assert rows.count() == 2 + len(GAINS)
    sources = set()
    for index in range(rows.count()):
        rows.nth(index).check(force=True)
        sources.add(over.get_attribute("src"))
    assert len(sources) == rows.count()
    stage.focus()
    before = over.get_attribute("src")
    stage.press("ArrowRight")
    assert over.get_attribute("src") != before
    stage.press("+")
    assert opened.locator("[data-zoomed]").inner_text() == "150 %"
    assert "scale(1.5)" in (opened.locator(".layers").get_attribute("style") or "")
    stage.press("0")
    stage.press(".")
    assert "55%" in (over.get_attribute("style") or "")
    opened.locator(".pick").first.click()
    assert opened.locator("[data-right]").inner_text() == "image"


def test_it_runs_nothing_and_asks_nothing_but_its_own_file(opened: Any, page: Path) -> None:
    assert [url for url in opened.requests if not url.startswith("data:")] == [page.as_uri()]
    assert opened.complaints == []
    opened.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    opened.wait_for_timeout(50)
    assert any("Content Security Policy" in text for text in opened.complaints)
    opened.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken(browser: Any, page: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    tab = browser.new_page(color_scheme=scheme)
    tab.goto(page.as_uri())
    tab.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run()")["violations"]
    tab.close()
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_a_phone_scrolls_in_one_direction_and_print_shows_the_images(browser: Any, page: Path) -> None:
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto(page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.emulate_media(media="print")
    assert tab.locator(".grid img").first.is_visible()
    assert not tab.locator(".viewer").is_visible()
    tab.close()
