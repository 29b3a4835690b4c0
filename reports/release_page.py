"""The page about one release."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from reports import charts
from reports.changes import week_path
from reports.context import Fork, Release, Values
from reports.downloads import of_release
from reports.family import family_pages, family_path, verdict_counts
from reports.headline import headline
from reports.interface import ReleaseView
from reports.listing import filters, listing_pages, main_listing
from reports.matrix import falls_json, topic_falls
from reports.plan import Entry, digest
from reports.summary import by_week, funnel, gone, sorted_gaps, week_changes
from reports.trends import first_loss, first_verdicts, trend

if TYPE_CHECKING:
    from reports.effort_chart import EffortChart

MOST_EVENTS = 30
"""Decided events of a release that its page lists, the newest ones."""
MOST_GAPS = 100
"""Gaps and gone forks that are listed; `verdicts.json` has all."""
MOST_WEEKS = 6
MOST_CHANGES = 8
"""Changes of a week that are listed; the page of the week has the others."""


def release_pages(release: Release) -> Iterator[Entry]:
    """Pages about one release: its own, further pages of the table of forks, its family."""
    path = release.site.routes.release(release.view)
    key = digest(release.key, release.site.week)
    yield release.site.page("release.html", path, key, lambda: _values(release))
    yield from listing_pages(release)
    yield from family_pages(release)


def _falls(fork: Fork) -> str:
    return falls_json(fork.row.safety)


def _effort(release: ReleaseView) -> EffortChart | None:
    if release.effort is None:
        return None
    from reports.effort_chart import effort_chart  # few releases have it

    return effort_chart(release.effort)


def _values(about: Release) -> Values:
    release, week = about.view, about.site.week
    rows = [fork.row for fork in about.forks]
    names = sorted(release.once(by_week), reverse=True)
    return {
        "release": release,
        "downloads": of_release(about),
        "listing": main_listing(about),
        "filters": filters(about),
        "week": week,
        "tiles": headline([about], week),
        "trend": trend(first_verdicts([release]), week),
        "first_loss": first_loss(release.changes, release.pinned_at),
        "bar": charts.verdict_bar(rows),
        "judged": len(rows),
        "funnel": funnel([release]),
        "topics": topic_falls(about.pieces("falls", about.forks, _falls)),
        "weeks": [
            (name, week_path(name), changes[:MOST_CHANGES], len(changes))
            for name in names[:MOST_WEEKS]
            if (changes := week_changes(release, name))
        ],
        "more_weeks": len(names) > MOST_WEEKS,
        "gaps": sorted_gaps(release),
        "gone": gone(release),
        "most": MOST_GAPS,
        "decided": [event for event in release.events if event.decision is not None][-MOST_EVENTS:],
        "family": None if release.tree is None else family_path(about),
        "family_counts": () if release.tree is None else verdict_counts(release.tree),
        "effort": _effort(release),
        "disputed": [fork for fork in about.forks if any(each.status == "open" for each in fork.disputes)],
    }
