"""The HTML pages of the site, as entries of its plan. None says anything about the time of the build.

A new page is a function here that yields `site.page(template, path, key, values)`; a new part of a page is a
value in the `values` of that page. `values` is asked for when the page is rendered, and `key` has to cover
it: take `site.key`, `release.key` or `fork.key`, unless the page depends on less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reports import charts, markdown
from reports.context import Fork, Release, Site, Values
from reports.effort_chart import effort_chart
from reports.interface import FindingDoc
from reports.plan import Entry, digest
from reports.routes import relative, sorted_releases
from reports.summary import (
    attention,
    attention_count,
    former_names,
    funnel,
    gone,
    sorted_gaps,
    weeks,
)
from reports.tree import branches

MOST_EVENTS = 30
"""Decided events of a release that its page lists, the newest ones."""
MOST_BRANCHES = 300
"""Lines of the family drawn on a release's page; the whole is in its JSON."""


def site_pages(site: Site) -> Iterator[Entry]:
    """Pages about no release in particular."""
    yield site.page("index.html", "index.html", site.key, lambda: _index(site))
    yield site.page("guide.html", "how-to-read.html", "", dict)
    findings = sorted(site.view.findings, key=lambda finding: finding.id)
    yield site.page("findings.html", "findings/index.html", digest(findings), lambda: {"findings": findings})
    for finding in findings:
        yield _finding(site, finding)


def release_pages(release: Release) -> Iterator[Entry]:
    """Pages about one release."""
    path = release.site.routes.release(release.view)
    yield release.site.page("release.html", path, release.key, lambda: _release(release))


def fork_pages(fork: Fork) -> Iterator[Entry]:
    """Pages about one fork. Its document is loaded when one is rendered."""
    yield fork.site.page("fork.html", fork.path, fork.key, lambda: _fork(fork))


def _index(site: Site) -> Values:
    releases = sorted_releases(site.view)
    return {
        "releases": [
            (release, charts.verdict_bar(release.scans), funnel([release]), attention_count(release))
            for release in releases
        ],
        "attention": attention(site.view),
        "funnel": funnel(releases),
        "gaps": [(release, gap) for release in releases for gap in sorted_gaps(release)],
        "newest": site.view.generated_at,
        "week": site.week,
    }


def _release(about: Release) -> Values:
    release, past = about.view, about.past
    rows = [fork.row for fork in about.forks]
    return {
        "release": release,
        "rows": [(row, past.first_verdict(row)) for row in rows],
        "bar": charts.verdict_bar(rows),
        "funnel": funnel([release]),
        "weeks": weeks(release),
        "gaps": sorted_gaps(release),
        "gone": gone(release),
        "decided": [event for event in release.events if event.decision is not None][-MOST_EVENTS:],
        "gone_names": {history.repo for history in release.histories if history.gone_at is not None},
        "branches": () if release.tree is None else branches(release.tree),
        "most_branches": MOST_BRANCHES,
        "effort": None if release.effort is None else effort_chart(release.effort),
    }


def _fork(fork: Fork) -> Values:
    scan, history = fork.scan(), fork.history
    return {
        "release": fork.release.facts,
        "scan": scan,
        "document": fork.document,
        "signed": fork.bundle is not None,
        "history": history,
        "former": fork.former,
        "formers": fork.formers,
        "lost": fork.gap,
        "former_names": () if history is None else former_names(history),
        "verdict_changes": fork.changes,
        "curve": None if history is None else charts.curve(history.samples),
        "since": fork.since,
        "first": fork.first,
        "heat": charts.heatmap(scan.heatmap) if scan.heatmap else None,
        "speaking_for": [finding for finding in scan.findings if finding.direction == "for"],
        "speaking_against": [finding for finding in scan.findings if finding.direction == "against"],
        "also": fork.also,
    }


def _finding(site: Site, finding: FindingDoc) -> Entry:
    path = site.routes.finding_page(finding.id)

    def values() -> Values:
        body = markdown.to_html(finding.markdown, site.routes.findings, _link_from(site, path))
        return {"finding": finding, "body": body}

    return site.page("finding.html", path, digest(finding), values)


def _link_from(site: Site, path: str) -> Callable[[str], str]:
    return lambda finding_id: relative(path, site.routes.finding_page(finding_id))
