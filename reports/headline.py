"""The counts at the head of the site and of a release, and how they moved this week."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.context import Release
from reports.interface import VerdictChange
from reports.numbers import plural
from reports.scan import VerdictLabel
from reports.summary import funnel, gone_in
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
    counts = funnel([release.view for release in releases])
    shifts = [shift(_standing(release), week) for release in releases]
    lost = [
        fork.row
        for release in releases
        for fork in release.forks
        if fork.row.verdict.label in LOST and _stands(release, fork.row.repo)
    ]
    asking = sum(release.past.asks(fork.row) for release in releases for fork in release.forks)
    went = sum(len(gone_in(release.view, week)) for release in releases)
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
            asking,
            _moved(sum(each.asking() for each in shifts)),
            "those, misrepresented ones and unsafe files",
        ),
        Tile(
            "Downloads, 30 days",
            sum(row.hub.downloads for row in lost),
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


def _standing(release: Release) -> list[VerdictChange]:
    """Changes of forks that are counted now: else a fork that came and went would count as a rise."""
    return [change for change in release.view.changes if _stands(release, change.repo)]


def _stands(release: Release, repo: str) -> bool:
    """The fork is there, and its verdict was not taken back."""
    history = release.past.history(repo)
    return (history is None or history.gone_at is None) and release.past.withdrawn(repo) is None


def _moved(count: int) -> str:
    return f"{count:+} this week" if count else "no change this week"
