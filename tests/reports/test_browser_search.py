"""The search box of the first page, from file:// and by keyboard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.reports import samples
from tests.reports.chromium import quiet_page
from tests.reports.sample_scans import RELEASE_COMMIT, commit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

FORK = "freeform/smollm2-unlocked"
WEIGHTS = hashlib.sha256(FORK.encode()).hexdigest()


@pytest.fixture(scope="module")
def page(browser: Browser, lived_site: Path) -> Iterator[Page]:
    """The first page, with the search box in focus."""
    with quiet_page(browser, viewport={"width": 768, "height": 800}) as page:
        page.goto((lived_site / "index.html").as_uri())
        page.locator("#q").focus()
        page.wait_for_function("window.forkwatchIndex !== undefined")
        yield page


def found(page: Page, text: str) -> list[str]:
    """Names of the hits for `text`."""
    page.locator("#q").fill(text)
    return page.locator(".hits a").all_inner_texts()


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("UNLOCKED-delta", [samples.DISPUTED]),
        (f"https://huggingface.co/{FORK}/tree/main?x=1#y", [FORK, samples.DISPUTED]),
        (f"hf.co/{samples.DELETED}", [samples.DELETED]),
        (WEIGHTS, [FORK]),
        (f"sha256:{WEIGHTS.upper()}", [FORK]),
        (WEIGHTS[:9], [FORK]),
        (commit(3), ["casts/smollm2-guarded-fp16"]),
        (RELEASE_COMMIT, [samples.RELEASE]),
        ("poet/old-name", [samples.RENAMED]),
        (WEIGHTS[:12] + "0000", []),
        ("x", []),
        ("<img src=x onerror=alert(1)>", []),
    ],
)
def test_what_is_typed_is_found(page: Page, text: str, hits: list[str]) -> None:
    """A name, an address, the hash of a weight file, a commit, a former name."""
    assert found(page, text) == hits


def test_nothing_found_is_no_clean_bill(page: Page) -> None:
    """The answer to an unknown name says what it does not mean."""
    assert found(page, "nobody/nothing") == []
    assert "Nothing found." in page.locator("[data-said]").inner_text()
    assert "no evidence that a model is safe" in page.locator("[data-said]").inner_text()


def test_a_hit_says_what_it_is_and_is_reached_by_keyboard(page: Page) -> None:
    """Verdicts stand beside names, one that was taken back does not, and Tab and Enter open the page."""
    assert found(page, samples.WITHDRAWN) == [samples.WITHDRAWN]
    assert page.locator(".hits li").inner_text() == f"{samples.WITHDRAWN} Verdict withdrawn"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/forks/**")
    assert page.locator("h1").inner_text() == samples.WITHDRAWN
    assert "Nothing is asserted about this repository" in page.locator(".headline").inner_text()
