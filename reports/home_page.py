"""The first page, and the search index behind its search box."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reports import charts
from reports.changes import has_page, week_path
from reports.context import Fork, Site, Values
from reports.downloads import SITE
from reports.headline import headline
from reports.plan import Entry, digest
from reports.routes import sorted_releases
from reports.search import PATH, SearchRow, line, script
from reports.summary import asking, attention, former_names, funnel, sorted_gaps
from reports.trends import first_verdicts, trend
from reports.words import VERDICTS

_HEX = re.compile("[0-9a-f]+", re.ASCII)


def home_pages(site: Site) -> Iterator[Entry]:
    """The first page and the index."""
    yield site.page("index.html", "index.html", site.key, lambda: _values(site))
    yield Entry(PATH, digest("search", site.key), lambda: script(_rows(site)))


def _values(site: Site) -> Values:
    releases = sorted_releases(site.view)
    return {
        "releases": [
            (release, charts.verdict_bar(release.scans), funnel([release]), len(release.once(asking)))
            for release in releases
        ],
        "tiles": headline([site.about(release) for release in releases], site.week),
        "trend": trend(first_verdicts(releases), site.week),
        "attention": attention(site.view),
        "funnel": funnel(releases),
        "gaps": [(release, gap) for release in releases for gap in sorted_gaps(release)],
        "newest": site.view.generated_at,
        "week": site.week,
        "week_page": week_path(site.week) if has_page(site.view, site.week) else None,
        "index": PATH,
        "json": "verdicts.json",
        "downloads": SITE,
    }


def _rows(site: Site) -> Iterator[tuple[str, str, str]]:
    for view in site.view.releases:
        release = site.about(view)
        page = site.routes.release(view)
        hashes = view.commit, _hex(view.original.root_digest)
        yield (
            view.repo,
            page,
            line(SearchRow(repo=view.repo, page=page, note="Guarded release", hashes=hashes)),
        )
        forks = (*release.forks, *release.formers)
        for fork, text in zip(forks, release.pieces("search", forks, _line), strict=True):
            yield fork.row.repo, fork.path, text


def _line(fork: Fork) -> str:
    row, history = fork.row, fork.history
    withdrawn = any(dispute.status == "withdrawn" and dispute.current for dispute in fork.disputes)
    found = SearchRow(
        repo=row.repo,
        page=fork.path,
        note="Verdict withdrawn" if withdrawn else VERDICTS[row.verdict.label].title,
        names=() if history is None else former_names(history),
        hashes=(row.commit, *(_hex(file.sha256) for file in row.files.weights)),
    )
    return line(found)


def _hex(text: str) -> str:
    """The hex digits of a digest; empty for anything else."""
    digits = text.removeprefix("sha256:").lower()
    return digits if _HEX.fullmatch(digits) else ""
