"""Reduced isolation is said wherever a fork's verdict is read; full isolation only on the fork's page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from forkwatch.cli.scan import _lines
from reports.build import build_site
from reports.digest import build_digest
from reports.interface import SiteView
from reports.scan import ScanDocument
from tests.reports import samples
from tests.reports.html_tools import pages_of

REDUCED = "reduced isolation: files of the user can be read or written (no Landlock)"
REPO = "abl/smollm2-directional"


@pytest.fixture(scope="module")
def reduced() -> SiteView:
    """The sample site, one of whose forks was run with reduced isolation."""
    view = samples.view()
    (release,) = view.releases
    scans = tuple(lower(scan) if scan.repo == REPO else scan for scan in release.scans)
    return replace(view, releases=(replace(release, scans=scans),))


def lower(scan: ScanDocument) -> ScanDocument:
    return replace(scan, safety=replace(scan.safety, isolation=REDUCED))


def test_scan_and_page_and_digest_say_it(reduced: SiteView, tmp_path: Path) -> None:
    """With what was missing, beside that fork and no other."""
    build_site(reduced, tmp_path / "site")
    said = {path: REDUCED in page.text for path, page in pages_of(tmp_path / "site").items()}
    assert {path for path, here in said.items() if here} == {
        f"forks/{REPO}/index.html",
        f"digest/{samples.WEEK}.html",
    }
    assert build_digest(reduced, samples.WEEK).text.count(REDUCED) == 1
    for scan in reduced.releases[0].scans:
        assert ("  " + REDUCED in _lines(scan)) == (scan.repo == REPO)


def test_full_isolation_is_not_talked_about() -> None:
    """Neither digest nor terminal repeat what is as it should be."""
    view = samples.view()
    assert "isolation" not in build_digest(view, samples.WEEK).text
    assert not any("isolation" in line for scan in view.releases[0].scans for line in _lines(scan))
