"""Debian's chromium, driven by playwright: what the browser tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
PATIENCE = 120_000  # Milliseconds: two busy cores start a browser slowly.


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser; without it the test is skipped, and fails in CI."""
    if CHROMIUM is None:
        reason = "chromium is not installed (apt-get install chromium)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        yield browser
        browser.close()


@contextmanager
def quiet_page(browser: Browser, **options: object) -> Iterator[Page]:
    """A page that fails the test when the browser complains: errors, refused content, dialogs, lost files."""
    complaints: list[str] = []
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.extend(_failed(request)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    yield page
    context.close()
    if complaints:
        pytest.fail("\n".join(complaints[:20]))


def _failed(request: Request) -> list[str]:
    """What could not be loaded; the icon of a page that was left too soon is no loss."""
    return [] if request.failure == "net::ERR_ABORTED" else [f"{request.failure}: {request.url}"]


def overflow(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
