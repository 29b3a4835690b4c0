"""The site in a real browser, from file://: no complaint, no sideways scrolling, nothing executed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reports.svg import write_svg
from tests.reports import sample_diffs, samples

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
PATIENCE = 120_000  # Milliseconds: two busy cores start a browser slowly.
pytestmark = pytest.mark.slow

PAGES = (
    "index.html",
    "how-to-read.html",
    "findings/directional-edit.html",
    "releases/demo/smollm2-135m-guarded/index.html",
    "forks/abl/smollm2-directional/index.html",
    "forks/quickload/smollm2-bin/index.html",
    "digest/2026-W47.html",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, driven by playwright."""
    if CHROMIUM is None:
        reason = "chromium is not installed (apt-get install chromium)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A narrow page that fails the test when the browser complains."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 360, "height": 800}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    yield page
    context.close()
    assert complaints == []


def overflow(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@pytest.mark.parametrize("name", PAGES)
def test_pages_load_from_a_file_and_fit_a_phone(page: Page, site: Path, name: str):
    """Stylesheet applied, no complaint, and at 360 and 320 px nothing to scroll sideways."""
    page.goto((site / name).as_uri())
    assert overflow(page) <= 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 24)"
    page.set_viewport_size({"width": 320, "height": 640})
    assert overflow(page) <= 0


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
    page.goto((site / "releases/demo/smollm2-135m-guarded/index.html").as_uri())
    rows = page.locator("#fork-table tbody tr:visible")
    assert rows.count() == len(samples.FORKS)
    page.locator("input[data-search]").fill("POET lora")
    assert rows.count() == 2
    assert page.locator("output[data-count]").inner_text() == "2 of 17 forks"
    page.locator("input[data-search]").fill("")
    page.locator("select[data-verdict]").select_option("safety-removed")
    assert rows.count() == 3
    page.locator("select[data-order]").select_option("scanned")
    assert next(row.get_attribute("data-name") for row in rows.all()) == "abl/smollm2-directional"


def test_everything_is_readable_without_script(browser: Browser, site: Path):
    """No script: no controls that would do nothing, all rows visible."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "releases/demo/smollm2-135m-guarded/index.html").as_uri(), timeout=PATIENCE)
    assert page.locator("#fork-table tbody tr").count() == len(samples.FORKS)
    assert not page.locator(".tools").is_visible()
    context.close()


def test_the_keyboard_reaches_the_content(page: Page, site: Path):
    """The first stop is the skip link, which is then visible and leads to the content."""
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"


def test_hostile_pages_do_nothing(page: Page, hostile_site: Path):
    """Every page of the poisoned site loads quietly, fits phone and desk, and runs none of it."""
    for path in sorted(hostile_site.rglob("*.html")):
        page.goto(path.as_uri())
        assert page.evaluate("window.pwned ?? null") is None
        for width in (360, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert overflow(page) <= 0, (width, path.relative_to(hostile_site))


@pytest.mark.parametrize("layers", [2, 126])
def test_diff_picture_fits(page: Page, tmp_path: Path, layers: int) -> None:
    """The SVG of a comparison opens by itself, and no text of it leaves the picture."""
    write_svg(sample_diffs.llama(layers, experts=2), tmp_path / "diff.svg")

    page.goto((tmp_path / "diff.svg").as_uri())

    outside = """() => [...document.querySelectorAll("text")]
        .filter(text => { const box = text.getBBox(); return box.x < 0 || box.x + box.width > 960; })
        .map(text => text.textContent)"""
    assert page.evaluate(outside) == []
