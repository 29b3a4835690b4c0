"""What became of forks: banners, events, downloads over time, replaced repositories and the family."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from reports import charts
from reports.build import build_site
from reports.digest import build_digest
from reports.family import MOST
from reports.interface import Gap, MetricPoint
from reports.summary import funnel
from reports.tree import TreeNode
from reports.tree_json import json_schema
from reports.verdicts import verdicts
from tests.reports import samples
from tests.reports.html_tools import Page, broken_links, pages_of, tree

RELEASE_PAGE = "releases/demo/smollm2-135m-guarded/index.html"
FAMILY_PAGE = "releases/demo/smollm2-135m-guarded/family.html"
PAGES = {row.repo: row.page for row in verdicts(samples.lived()).releases[0].verdicts}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of forks with a past."""
    out = tmp_path_factory.mktemp("lived") / "out"
    build_site(samples.lived(), out)
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """Its pages."""
    return pages_of(site)


def words(page: Page) -> str:
    """The text of a page, with single spaces."""
    return " ".join(page.text.split())


def former_page(pages: dict[str, Page]) -> str:
    """The page of the repository whose name another one has."""
    (found,) = (name for name in pages if re.fullmatch(r"forks/rp/smollm2-roleplay~\w{10}/index.html", name))
    return found


def test_the_same_past_gives_the_same_bytes(site, tmp_path):
    """Whatever order the view has."""
    view = samples.lived()
    (release,) = view.releases
    shuffled = replace(release, scans=release.scans[::-1], histories=release.histories[::-1])
    build_site(replace(view, releases=(shuffled,)), tmp_path / "again")
    assert tree(tmp_path / "again") == tree(site)
    assert broken_links(site) == []


def test_a_deleted_fork_keeps_its_page(pages):
    """Since when it is gone comes with the verdict, which stays."""
    text = words(pages[PAGES[samples.DELETED]])
    assert "Gone since 2026-11-19" in text
    assert "Deleted, or made private" in text
    assert "Safety removed" in text


def test_a_deleted_fork_is_listed_as_gone(pages):
    """On the release's page, once among the gone and marked in the table; it is no gap."""
    text = words(pages[RELEASE_PAGE])
    section = text[text.index("Deleted or made private; their pages and verdicts stay.") :]
    assert f"2026-11-19 {samples.DELETED}" in section
    (release,) = samples.lived().releases
    assert samples.DELETED not in {gap.repo for gap in release.gaps}


def test_a_deleted_fork_asks_for_no_decision(pages):
    """Nobody can act on what is gone; the digest of that week says that it went."""
    section = words(pages["index.html"]).split("Guarded releases")[0]
    assert samples.DELETED not in section
    digest = build_digest(samples.lived(), samples.WEEK)
    assert f"- {samples.DELETED}: deleted or private" in digest.text
    assert samples.DELETED not in build_digest(samples.lived(), "2026-W40").text.split("COVERAGE")[0]


def test_events_are_dated(pages):
    """First sight, rename and commit, each with its day, and the former name beside the verdict."""
    text = words(pages[PAGES[samples.RENAMED]])
    assert "2026-11-01 First seen" in text
    assert f"2026-11-03 Renamed: from poet/old-name to {samples.RENAMED}" in text
    assert f"2026-11-04 New commit: {samples.commit(2)[:12]}" in text
    assert "Formerly poet/old-name." in text


def test_downloads_over_time_have_their_numbers_as_a_table(pages):
    """A picture with two points or more, and the same numbers beside it; no picture without."""
    page = pages[PAGES[samples.RENAMED]]
    assert [attrs for attrs in page.all("svg") if attrs.get("class") == "trend-line"]
    assert "From 10 to 1,200 (120 times the first count); at most 1,200." in words(page)
    assert "2026-11-09359" in words(page)  # three cells of a row
    other = pages[PAGES[samples.DELETED]]
    assert not [attrs for attrs in other.all("svg") if attrs.get("class") == "trend-line"]


def test_a_curve_stays_in_its_box():
    """Steps from the first to the last day; a flat line of zeros is at the bottom; one point is no curve."""
    points = [
        MetricPoint(at=f"2026-11-{day:02d}T00:00:00Z", downloads=count, likes=0)
        for day, count in ((1, 5), (3, 0), (11, 10))
    ]
    curve = charts.curve(points)
    assert curve is not None
    assert curve.path == "M0.0 15.0H20.0V28.0H100.0V2.0"
    flat = charts.curve([replace(point, downloads=0) for point in points])
    assert flat is not None
    assert flat.path == "M0.0 28.0H20.0V28.0H100.0V28.0"
    assert charts.curve(points[:1]) is None
    same = charts.curve([points[0], points[0]])
    assert same is not None


def test_a_name_that_was_registered_again_has_two_pages(pages):
    """The old verdict stays with the old repository, and each page says which one it is about."""
    former, present = pages[former_page(pages)], pages[PAGES[samples.TAKEN]]
    assert "This is about a repository that is gone." in words(former)
    assert "The former one was authentic." in words(former)
    assert "first verdict 2026-10-01" in words(former)
    assert "Safety degraded" not in words(former)
    assert "An earlier repository of this name is gone." in words(present)
    assert "The former one was authentic." not in words(present)
    assert "2026-10-01" not in words(present)


def test_machines_get_the_present_repository_only(site):
    """A verdict about the former repository must not be applied to the one that has its name."""
    document = json.loads((site / "verdicts.json").read_text())
    (rows,) = (release["verdicts"] for release in document["releases"])
    taken = [row for row in rows if row["repo"] == samples.TAKEN]
    assert [row["verdict"] for row in taken] == ["safety-degraded"]
    gone = {row["repo"]: row["gone_at"] for row in rows if row["gone_at"]}
    assert gone == {samples.DELETED: "2026-11-19T06:00:00Z"}
    assert [row["former_names"] for row in rows if row["repo"] == samples.RENAMED] == [["poet/old-name"]]


def test_the_family_tells_claims_proofs_and_inference_apart(pages, site):
    """Each edge is marked as what it is; an inferred verdict says so and has no verdict mark."""
    page = pages[FAMILY_PAGE]
    assert {"claimed", "proved"} <= {attrs.get("class", "") for attrs in page.all("li")}
    assert "inferred" in {attrs.get("class", "") for attrs in page.all("span")}
    assert (
        f"{samples.QUANT} safety removed, inferred from {samples.DELETED}; not examined claimed: quantized"
        in words(page)
    )
    document = json.loads((site / "api/v1/releases/demo/smollm2-135m-guarded/tree.json").read_text())
    jsonschema.validate(document, json_schema())


def test_inferred_verdicts_are_in_no_count(pages):
    """The counts on the first page are those of examined forks that are there."""
    assert "18 candidate forks of 1 guarded release" in words(pages["index.html"])


def test_gone_forks_are_counted_apart():
    """Deleted, replaced, and gone before there was a verdict: in none of the stages, and said to be gone."""
    view = samples.lived()
    (release,) = view.releases
    early = Gap(repo="early/gone", reason="gone since 2026-11-01, before it was examined", gone=True)
    counts = funnel([replace(release, gaps=(*release.gaps, early))])
    there = [scan for scan in release.scans if scan.repo != samples.DELETED]
    assert (counts.judged, counts.candidates, counts.gone) == (len(there), len(there) + 2, 3)
    assert counts.evaluated == sum(scan.safety.status != "not-measured" for scan in there)
    assert [reason.text for reason in counts.gaps] == sorted(gap.reason for gap in release.gaps)
    assert "Not counted: 2 forks are gone." in build_digest(view, samples.WEEK).text


def test_a_verdict_does_not_hide_that_the_present_state_was_not_examined(tmp_path):
    """Said on the fork's page, among the gaps and in the digest; counted once, as judged, and not as gone."""
    view = samples.lived()
    (release,) = view.releases
    failed = Gap(repo=samples.RENAMED, reason="the download is corrupt")
    spoilt = replace(release, gaps=(*release.gaps, failed))
    build_site(samples.with_releases(spoilt), tmp_path / "site")
    made = pages_of(tmp_path / "site")
    assert "Its present state could not be examined: the download is corrupt." in words(
        made[PAGES[samples.RENAMED]]
    )
    assert f"{samples.RENAMED}the download is corrupt" in words(made[RELEASE_PAGE])
    digest = build_digest(samples.with_releases(spoilt), samples.WEEK)
    assert "earlier state only (1): the download is corrupt" in digest.text
    assert f"- {samples.RENAMED}: the download is corrupt" not in digest.text
    before, after = funnel([release]), funnel([spoilt])
    assert replace(after, lost=()) == before
    assert [reason.text for reason in after.lost] == ["the download is corrupt"]


def test_a_large_family_is_cut_on_the_page_and_whole_in_the_document(tmp_path):
    """The page stays small, and says how much it leaves out."""
    view = samples.lived()
    (release,) = view.releases
    more = tuple(TreeNode(repo=f"many/m{number:05d}", role="fork") for number in range(5000))
    large = replace(release, tree=replace(release.tree, nodes=(*release.tree.nodes, *more)))
    build_site(replace(view, releases=(large,)), tmp_path / "site")
    page = tmp_path / "site" / FAMILY_PAGE
    assert page.stat().st_size < 200_000
    lines = pages_of(tmp_path / "site")[FAMILY_PAGE]
    assert f"And {len(large.tree.nodes) - MOST:,} more lines." in words(lines)
    document = json.loads((tmp_path / "site/api/v1/releases/demo/smollm2-135m-guarded/tree.json").read_text())
    assert len(document["nodes"]) == len(large.tree.nodes)
