"""The sample site, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.build import build_site
from tests.reports import hostile, samples
from tests.reports.html_tools import Page, pages_of


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
