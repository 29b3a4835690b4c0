"""The sample site, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.site import build_site
from tests.reports import hostile, samples


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
