"""The first page, and the search index behind its search box."""

from __future__ import annotations

from collections.abc import Iterator

from reports import charts
from reports.changes import week_pages, week_path
from reports.context import Fork, Site, Values
from reports.downloads import SITE
from reports.headline import headline
from reports.plan import Entry, digest
from reports.routes import sorted_releases
from reports.search import PATH, SearchRow, search_index
from reports.summary import attention, attention_count, former_names, funnel, sorted_gaps
from reports.trends import trend
from reports.words import VERDICTS


def home_pages(site: Site) -> Iterator[Entry]:
    """The first page and the index."""
    yield site.page("index.html", "index.html", site.key, lambda: _values(site))
    yield Entry(PATH, digest("search", site.key), lambda: search_index(_rows(site)))


def _values(site: Site) -> Values:
    releases = sorted_releases(site.view)
    weeks = {week.name for week in week_pages(site.view)}
    return {
        "releases": [
            (release, charts.verdict_bar(release.scans), funnel([release]), attention_count(release))
            for release in releases
        ],
        "tiles": headline([site.about(release) for release in releases], site.week),
        "trend": trend((change for release in releases for change in release.changes), site.week),
        "attention": attention(site.view),
        "funnel": funnel(releases),
        "gaps": [(release, gap) for release in releases for gap in sorted_gaps(release)],
        "newest": site.view.generated_at,
        "week": site.week,
        "week_page": week_path(site.week) if site.week in weeks else None,
        "index": PATH,
        "json": "verdicts.json",
        "downloads": SITE,
    }


def _rows(site: Site) -> Iterator[SearchRow]:
    for view in site.view.releases:
        release = site.about(view)
        yield SearchRow(
            repo=view.repo,
            page=site.routes.release(view),
            note="Guarded release",
            hashes=(view.commit, _hex(view.original.root_digest)),
        )
        yield from (_row(fork) for fork in (*release.forks, *release.formers))


def _row(fork: Fork) -> SearchRow:
    row, history = fork.row, fork.history
    withdrawn = any(dispute.status == "withdrawn" and dispute.current for dispute in fork.disputes)
    return SearchRow(
        repo=row.repo,
        page=fork.path,
        note="Verdict withdrawn" if withdrawn else VERDICTS[row.verdict.label].title,
        names=() if history is None else former_names(history),
        hashes=(row.commit, *(_hex(file.sha256) for file in row.files.weights)),
    )


def _hex(text: str) -> str:
    """The hex digits of a digest; empty for anything else."""
    digits = text.removeprefix("sha256:").lower()
    return digits if digits and all(char in "0123456789abcdef" for char in digits) else ""
