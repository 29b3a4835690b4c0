"""The counts at the head of the site and of a release, and how they moved this week."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.context import Release
from reports.interface import ReleaseView, VerdictChange
from reports.numbers import plural
from reports.rows import ForkRow, downloads
from reports.scan import VerdictLabel
from reports.summary import Past, asking, funnel, gone_in
from reports.trends import shift

LOST: frozenset[VerdictLabel] = frozenset({"safety-degraded", "safety-removed"})


@dataclass(frozen=True, slots=True)
class Tile:
    """One count."""

    title: str
    value: int
    moved: str
    """Against the end of last week, in words."""
    note: str


def headline(releases: Sequence[Release], week: str) -> tuple[Tile, ...]:
    """Of some releases, in the week of the newest result."""
    views = [release.view for release in releases]
    counts = funnel(views)
    shifts = [shift(view.once(_standing), week) for view in views]
    lost = [row for view in views for row in view.once(_lost)]
    went = sum(len(gone_in(view, week)) for view in views)
    new = sum(each.new for each in shifts)
    missing = counts.candidates - counts.judged
    return (
        Tile(
            "Forks with a verdict",
            counts.judged,
            f"{new:+} this week" if new else "none new this week",
            f"of {plural(counts.candidates, 'candidate')} found",
        ),
        Tile(
            "Safety removed or degraded",
            len(lost),
            _moved(sum(each.lost_safety() for each in shifts)),
            "as measured on the same prompts",
        ),
        Tile(
            "Need a decision",
            sum(len(view.once(asking)) for view in views),
            _moved(sum(each.asking() for each in shifts)),
            "safety removed or degraded, misrepresented, or unsafe files",
        ),
        Tile(
            "Downloads, 30 days",
            sum(map(downloads, lost)),
            "",
            "of forks with safety removed or degraded",
        ),
        Tile("Gone", counts.gone, _moved(went), "deleted, made private or replaced"),
        Tile(
            "Not examined",
            missing,
            "",
            "candidates without a verdict; the reasons are below"
            if missing
            else "every candidate has a verdict",
        ),
    )


def _standing(release: ReleaseView) -> list[VerdictChange]:
    """Changes of forks that are counted now: else a fork that came and went would count as a rise."""
    past = release.once(Past)
    return [change for change in release.changes if _stands(past, change.repo)]


def _lost(release: ReleaseView) -> list[ForkRow]:
    past = release.once(Past)
    return [row for row in release.scans if row.verdict.label in LOST and _stands(past, row.repo)]


def _stands(past: Past, repo: str) -> bool:
    """The fork is there, and its verdict was not taken back."""
    history = past.history(repo)
    return (history is None or history.gone_at is None) and past.withdrawn(repo) is None


def _moved(count: int) -> str:
    return f"{count:+} this week" if count else "no change this week"
