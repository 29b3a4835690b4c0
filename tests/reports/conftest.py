"""The sample site, built once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reports import listing
from reports.build import build_site
from tests.reports import hostile, samples
from tests.reports.chromium import chromium
from tests.reports.html_tools import Page, pages_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a file."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def lived_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every type of page, with forks that are gone, renamed, replaced, disputed and withdrawn.

    Eight forks make a page of the table, so that it has further ones.
    """
    out = tmp_path_factory.mktemp("lived") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "PAGE", 8)
        build_site(samples.lived(), out)
    return out


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample site."""
    out = tmp_path_factory.mktemp("site") / "out"
    build_site(samples.view(), out)
    return out


@pytest.fixture(scope="session")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site in which every text from the Hub is an attack."""
    out = tmp_path_factory.mktemp("hostile") / "out"
    build_site(hostile.view(), out)
    return out


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[str, Page]:
    """The pages of the sample site."""
    return pages_of(site)


@pytest.fixture(scope="session")
def hostile_pages(hostile_site: Path) -> dict[str, Page]:
    """The pages of the poisoned site."""
    return pages_of(hostile_site)
