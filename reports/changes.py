"""Changes by week: one page a week, which stays as it is when the week is over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from reports.context import Site, Values, change_key
from reports.exports import names
from reports.interface import DisputeView, ReleaseEvent, ReleaseView, SiteView, VerdictChange
from reports.numbers import moment, week_of
from reports.plan import Entry, digest, digest_of
from reports.routes import release_key, sorted_releases
from reports.summary import Gone, Net, gone, net_changes
from reports.trends import trend

MOST = 250
"""Lines of each kind and release on a page; the rest is in the JSON of the week."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one week brought for one release."""

    release: ReleaseView
    changes: list[VerdictChange] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    events: list[ReleaseEvent] = field(default_factory=list)
    opened: list[DisputeView] = field(default_factory=list)
    decided: list[DisputeView] = field(default_factory=list)

    def net(self) -> tuple[Net, ...]:
        """Net changes of verdicts, by name."""
        return net_changes(self.changes)

    @property
    def repos(self) -> tuple[str, ...]:
        """Forks that it links to."""
        changed, gone = (each.repo for each in self.changes), (each.repo for each in self.gone)
        return (*changed, *gone, *(each.repo for each in (*self.opened, *self.decided)))

    @property
    def key(self) -> str:
        """Digest of all of it."""
        changes = digest_of((sorted(map(change_key, self.changes)),))
        return digest(release_key(self.release), changes, self.gone, self.events, self.opened, self.decided)


@dataclass(frozen=True, slots=True)
class WeekPage:
    """One week."""

    name: str
    shares: tuple[Share, ...]

    @property
    def path(self) -> str:
        """Relative to the site's root."""
        return week_path(self.name)


def week_path(name: str) -> str:
    """Where the page of a week is."""
    return f"changes/{name}.html"


def week_pages(view: SiteView) -> tuple[WeekPage, ...]:
    """Every week in which something happened, newest first."""
    found: defaultdict[str, list[Share]] = defaultdict(list)
    for release in sorted_releases(view):
        shares: dict[str, Share] = {}
        for name, kind, item in _happened(release):
            getattr(shares.setdefault(name, Share(release)), kind).append(item)
        for name, share in shares.items():
            found[name].append(share)
    return tuple(WeekPage(name, tuple(found[name])) for name in sorted(found, reverse=True))


def has_page(view: SiteView, name: str) -> bool:
    """Whether something happened in a week."""
    return any(week == name for release in view.releases for week, _, _ in _happened(release))


def _happened(release: ReleaseView) -> Iterator[tuple[str, str, object]]:
    """(week, list of `Share`, item)."""
    for change in release.changes:
        yield week_of(change.at), "changes", change
    for fork in gone(release):
        if fork.since:
            yield week_of(fork.since), "gone", fork
    for event in release.events:
        yield week_of(event.at), "events", event
    for dispute in release.disputes:
        if dispute.statement:  # else a withdrawal that nobody had asked for
            yield week_of(dispute.opened_at), "opened", dispute
        if dispute.decided_at is not None:
            yield week_of(dispute.decided_at), "decided", dispute


def change_pages(site: Site) -> Iterator[Entry]:
    """The list of weeks, and a page for each."""
    weeks = week_pages(site.view)
    keys = {week.name: digest([share.key for share in week.shares]) for week in weeks}
    yield site.page(
        "changes.html", "changes/index.html", digest(site.week, keys), partial(_index, site, weeks)
    )
    for place, week in enumerate(weeks):
        later = weeks[place - 1].name if place else None
        earlier = weeks[place + 1].name if place + 1 < len(weeks) else None
        pages = [site.routes.fork(share.release, repo) for share in week.shares for repo in share.repos]
        key = digest(keys[week.name], later, earlier, digest_of((sorted(filter(None, pages)),)))
        yield site.page("week.html", week.path, key, partial(_week, week, later, earlier))


def _index(site: Site, weeks: Sequence[WeekPage]) -> Values:
    changes = [change for release in site.view.releases for change in release.changes]
    return {"weeks": [(week, _counts(week)) for week in weeks], "trend": trend(changes, site.week)}


def _counts(week: WeekPage) -> tuple[int, int, int, int]:
    """First verdicts, changed ones, forks gone, disputes opened."""
    net = [change for share in week.shares for change in share.net()]
    new = sum(change.before is None for change in net)
    went = sum(len(share.gone) for share in week.shares)
    return new, len(net) - new, went, sum(len(share.opened) for share in week.shares)


def _week(week: WeekPage, later: str | None, earlier: str | None) -> Values:
    return {
        "week": week,
        "json": names.changes(week.name) if any(share.changes for share in week.shares) else None,
        "counts": _counts(week),
        "later": later,
        "earlier": earlier,
        "most": MOST,
        "shares": [
            (
                share,
                [change for change in share.net() if change.before is None],
                [change for change in share.net() if change.before is not None],
                sorted(share.events, key=lambda event: moment(event.at)),
            )
            for share in week.shares
        ],
    }
