"""The HTML report in a real browser: quiet, self-contained, usable by keyboard, without scripts, on a phone, by all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from prove.report.figures import pictures
from prove.report.page import page
from prove.report.table import Cell, Column, Table
from tests.report.chromium import chromium, column, opened
from tests.report.studies import simulate
from tests.report.test_page import HOSTILE, Figure, NoFigure, every_table, poisoned, table, troubled

WIDE = Figure(
    "wide",
    "Effects",
    "How to read it.",
    '<svg class="prove-figure wide" viewBox="0 0 500 100" role="img" aria-labelledby="figure-wide-title">'
    '<title id="figure-wide-title">Effects</title><path d="M0 50H500" stroke="currentColor"/></svg>',
)

OPEN = "for (const fold of document.querySelectorAll('details')) fold.open = true"

ROWS = (("ce", 9.5), ("focal 10", -3.0), ("Dice", None), ("focal 9", 100.0), ("lovasz", 0.25))


def sorted_table() -> Table:
    rows = tuple(
        (Cell(name), Cell("–" if value is None else f"{value:+.1f}", value), Cell("A long text. " * 12))
        for name, value in ROWS
    )
    return table("sorted", columns=(Column("loss", "left"), Column("Δ"), Column("remark", "left")), rows=rows)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = troubled()
    keys = tuple(run.key for run in study.runs[:3])
    linked = table(
        "linked", rows=((Cell("ce", runs=keys), Cell("50", 50.0, runs=keys)), (Cell("x"), Cell("", muted=True)))
    )
    tables = every_table(study)
    html = page(
        study,
        tables={**tables, "results": [*tables["results"], sorted_table(), linked]},
        figures=[*pictures(study), WIDE, NoFigure("none", "Nothing", "There is nothing to draw.")],
        generated_at="1 May 2030",
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def test_the_watch_hears_and_sees(browser: Browser, tmp_path: Path) -> None:
    """What the next test relies on: a page that complains and loads is noticed."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='pixel.png'><script>console.warn('careful'); throw new Error('broken')</script>")
    with opened(browser, bad) as watched:
        watched.page.wait_for_load_state("networkidle")
        assert len(watched.asked) == 1
        assert any("careful" in said for said in watched.complaints)
        assert any("broken" in said for said in watched.complaints)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_neither_complains_nor_loads_anything(browser: Browser, file: Path, scheme: str) -> None:
    with opened(browser, file, scheme=scheme) as watched:
        for header in watched.page.locator("#table-sorted button.sort").all():
            header.click()
        watched.page.locator("button.theme").click()
        watched.page.wait_for_load_state("networkidle")
        assert watched.complaints == []
        assert watched.asked == []


def test_a_column_sorts_by_click_and_by_keyboard(browser: Browser, file: Path) -> None:
    written = [name for name, _ in ROWS]
    known = sorted((value, name) for name, value in ROWS if value is not None)
    rising = [*(name for _, name in known), "Dice"]  # what has no value stays at the end
    falling = [*(name for _, name in reversed(known)), "Dice"]
    with opened(browser, file) as watched:
        there = watched.page
        header = there.locator("#table-sorted thead th").nth(1)
        assert header.get_attribute("aria-sort") is None
        header.locator("button").click()
        assert (header.get_attribute("aria-sort"), column(there, "#table-sorted", 0)) == ("ascending", rising)
        header.locator("button").press("Enter")
        assert (header.get_attribute("aria-sort"), column(there, "#table-sorted", 0)) == ("descending", falling)
        header.locator("button").press("Space")
        assert (header.get_attribute("aria-sort"), column(there, "#table-sorted", 0)) == (None, written)


def test_text_sorts_as_people_do_and_one_column_at_a_time(browser: Browser, file: Path) -> None:
    with opened(browser, file) as watched:
        headers = watched.page.locator("#table-sorted thead th")
        headers.nth(1).locator("button").click()
        headers.nth(0).locator("button").click()
        assert column(watched.page, "#table-sorted", 0) == ["ce", "Dice", "focal 9", "focal 10", "lovasz"]
        assert [header.get_attribute("aria-sort") for header in headers.all()] == ["ascending", None, None]


def test_the_runs_sort_by_loss_not_by_remark(browser: Browser, file: Path) -> None:
    with opened(browser, file) as watched:
        watched.page.locator("table.runs thead button").nth(1).click()
        losses = watched.page.locator("table.runs tbody .loss").all_text_contents()
        assert losses == sorted(losses, key=lambda loss: loss.removeprefix("ce"))
        assert len(set(losses)) == 4


@pytest.mark.parametrize(("scheme", "other"), [("light", "dark"), ("dark", "light")])
def test_the_theme_follows_the_system_until_the_reader_chooses(
    browser: Browser, file: Path, scheme: str, other: str
) -> None:
    def lightness(there: object) -> str:
        color = there.evaluate("getComputedStyle(document.body).backgroundColor")  # type: ignore[attr-defined]
        return "light" if sum(map(int, color[4:-1].split(","))) > 380 else "dark"

    with opened(browser, file, scheme=scheme) as watched:
        there = watched.page
        button = there.get_by_role("button", name="Dark", exact=True)
        assert lightness(there) == scheme
        assert button.get_attribute("aria-pressed") == str(scheme == "dark").lower()
        button.press("Enter")
        assert lightness(there) == other
        assert button.get_attribute("aria-pressed") == str(other == "dark").lower()
        there.reload()
        assert lightness(there) == other  # it is remembered
        there.emulate_media(media="print")
        assert lightness(there) == "light"


def test_without_scripts_everything_is_there(browser: Browser, file: Path) -> None:
    texts = []
    for scripts in (True, False):
        with opened(browser, file, scripts=scripts) as watched:
            there = watched.page
            closed = there.locator("main details:not([open]) > summary")
            while closed.count():
                closed.first.click()
            texts.append(sorted(there.locator("body").inner_text().split()))
            assert (there.locator("button.sort").count() > 10) == scripts
            assert there.locator("button:visible").count() == (there.locator("button").count() if scripts else 0)
            assert there.locator("nav a").first.is_visible()
    with_scripts, without = texts
    with_scripts.remove("Dark")
    assert without == with_scripts


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Browser, file: Path, scheme: str, width: int) -> None:
    with opened(browser, file, scheme=scheme, width=width) as watched:
        watched.page.evaluate(OPEN)
        found = Axe().run(watched.page)
        assert found.response["violations"] == [], found.generate_report()


def test_axe_would_find_one(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<!DOCTYPE html><title>x</title><img src='data:,'><p style='color:#ddd'>pale</p>")
    with opened(browser, bad) as watched:
        rules = {violation["id"] for violation in Axe().run(watched.page).response["violations"]}
        assert {"image-alt", "color-contrast", "html-has-lang"} <= rules


@pytest.mark.parametrize("width", [360, 768, 1024, 1600])
def test_the_page_never_scrolls_sideways(browser: Browser, file: Path, width: int) -> None:
    with opened(browser, file, width=width) as watched:
        watched.page.evaluate(OPEN)
        assert watched.page.evaluate("document.documentElement.scrollWidth") == width
        overflowing = """[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .hidden, .skip"))
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120))"""
        assert watched.page.evaluate(overflowing) == []


def test_a_box_is_a_stop_of_the_tab_key_only_where_it_scrolls(browser: Browser, file: Path) -> None:
    stops = "[...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth > e.clientWidth + 1, e.tabIndex >= 0])"
    drawn = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    seen = set()
    for width in (360, 1600):
        with opened(browser, file, width=width) as watched:
            watched.page.evaluate(OPEN)
            watched.page.evaluate(drawn)
            found = watched.page.evaluate(stops)
            assert all(wide == stop for wide, stop in found)
            seen.update(wide for wide, _ in found)
    assert seen == {True, False}


def test_links_lead_to_runs(browser: Browser, file: Path) -> None:
    missing = "[...document.querySelectorAll('a[href]')].filter(a => !document.getElementById(a.hash.slice(1))).length"
    with opened(browser, file) as watched:
        there = watched.page
        assert there.evaluate(missing) == 0
        link = there.locator(".issues a.key").first
        key = link.inner_text()
        link.press("Enter")
        assert there.locator("tr:target").get_attribute("id") == f"run-{key}"
        assert there.locator("tr:target").is_visible()


def test_the_keyboard_reaches_the_report_past_the_contents(browser: Browser, file: Path) -> None:
    with opened(browser, file) as watched:
        there = watched.page
        there.keyboard.press("Tab")
        assert there.locator(":focus").inner_text() == "Skip to the report"
        there.keyboard.press("Enter")
        assert there.locator(":focus").get_attribute("id") == "main"


@pytest.mark.parametrize("poison", HOSTILE)
def test_no_hostile_text_runs_or_loads(browser: Browser, tmp_path: Path, poison: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(poisoned(poison), encoding="utf-8")
    with opened(browser, path) as watched:
        watched.page.wait_for_load_state("networkidle")
        assert watched.page.evaluate("window.hacked") is None
        assert watched.page.locator("script, img, [onerror], [onload], [onmouseover]").count() == 1  # its own script
        assert watched.asked == []
        assert watched.complaints == []


def test_the_policy_stops_a_script_even_in_a_figure(browser: Browser, tmp_path: Path) -> None:
    """Figures are trusted not to hold one; were one to slip in, it must not run, load or send."""
    path = tmp_path / "report.html"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        picture = f'<image href="http://127.0.0.1:{server.getsockname()[1]}/x.png"/>'
        evil = f'<svg onload="window.hacked=1"><script>window.hacked=1</script>{picture}</svg>'
        path.write_text(page(simulate(), tables={}, figures=[Figure("evil", "x", "x", evil)]), encoding="utf-8")
        with opened(browser, path) as watched:
            watched.page.wait_for_load_state("networkidle")
            assert watched.page.evaluate("window.hacked") is None
            assert any("Content Security Policy" in said for said in watched.complaints)
        with pytest.raises(BlockingIOError):
            server.accept()
