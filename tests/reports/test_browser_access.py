"""Every type of page, for everybody: axe-core, the keyboard, a narrow window, both colour schemes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.reports import samples
from tests.reports.chromium import overflow, quiet_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

RELEASE = "releases/demo/smollm2-135m-guarded"
PAGES = (
    "index.html",
    f"{RELEASE}/index.html",
    f"{RELEASE}/forks-2.html",
    f"{RELEASE}/verdict-safety-removed-1.html",
    f"{RELEASE}/family.html",
    "changes/index.html",
    "changes/2026-W47.html",
    "forks/abl/smollm2-directional/index.html",
    "forks/poet/smollm2-guarded-haiku/index.html",
    "forks/freeform/smollm2-unlocked-delta/index.html",
    "forks/official-mirror/smollm2-135m-guarded/index.html",
    "forks/quickload/smollm2-bin/index.html",
    f"forks/{samples.WITHDRAWN}/index.html",
    "digest/2026-W47.html",
    "findings/index.html",
    "findings/directional-edit.html",
    "methodology/index.html",
    "methodology/weights.html",
    "how-to-read.html",
)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDE = {"width": 1440, "height": 900}

STOP = """(() => {
    const at = document.activeElement;
    return [at.tagName, getComputedStyle(at).outlineWidth, at.getBoundingClientRect().height];
})()"""


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A wide page that must not complain."""
    with quiet_page(browser, viewport=WIDE) as page:
        yield page


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(page: Page, lived_site: Path, name: str) -> None:
    """WCAG 2.2 A and AA and axe's best practices, all details open; 320 px and paper are wide enough."""
    page.set_viewport_size(WIDE)
    page.goto((lived_site / name).as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")

    assert violations(page, RULES) == []

    page.emulate_media(color_scheme="dark")
    assert violations(page, ["color-contrast"]) == []
    page.emulate_media(color_scheme="light")

    page.set_viewport_size({"width": 320, "height": 640})
    assert overflow(page) <= 0

    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 within usual margins
    over = overflow(page)
    page.emulate_media(media="screen")
    assert over <= 0


def violations(page: Page, rules: list[str]) -> list[tuple[str, list[str]]]:
    """Rule and the first elements that break it."""
    options = {
        "resultTypes": ["violations"],
        "runOnly": rules,
        "preload": False,
    }  # A preload would be a fetch.
    found = Axe().run(page, options=options).response["violations"]
    return [(each["id"], [node["target"] for node in each["nodes"]][:3]) for each in found]


def test_the_keyboard_reaches_everything_in_order(page: Page, lived_site: Path) -> None:
    """First the skip link, which shows and works; then every stop has a visible focus and a place."""
    page.set_viewport_size({"width": 768, "height": 900})
    page.goto((lived_site / "forks/poet/smollm2-guarded-haiku/index.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    tags = []
    for _ in range(40):
        page.keyboard.press("Tab")
        tag, outline, height = page.evaluate(STOP)
        if tag == "BODY":
            break
        assert outline == "3px", tag
        assert height > 0
        tags.append(tag)
    assert {"A", "SUMMARY", "DIV", "PRE"} <= set(tags)


def test_a_table_stands_behind_each_picture(page: Page, lived_site: Path) -> None:
    """A chart that is an image for assistive technology has its numbers beside it, as a table or a list."""
    for name in (*PAGES[:2], *PAGES[7:9]):
        page.goto((lived_site / name).as_uri())
        lonely = page.evaluate(
            "[...document.querySelectorAll('svg[role=img]')].filter((svg) => "
            "!svg.closest('figure, section, article').querySelector('table, ul.legend'))"
            ".map((svg) => svg.getAttribute('class'))"
        )
        assert lonely == []
