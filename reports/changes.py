"""Changes by week: one page a week, which stays as it is when the week is over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from reports.context import Site, Values
from reports.exports import names
from reports.interface import DisputeView, ReleaseEvent, ReleaseView, SiteView, VerdictChange
from reports.numbers import moment, week_of
from reports.plan import Entry, digest
from reports.routes import release_key, sorted_releases
from reports.summary import Gone, Net, by_week, gone, net_changes
from reports.trends import first_verdicts, trend

MOST = 250
"""Lines of each kind and release on a page; the rest is in the JSON of the week."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one week brought for one release."""

    release: ReleaseView
    changes: Sequence[VerdictChange] = ()
    gone: list[Gone] = field(default_factory=list)
    events: list[ReleaseEvent] = field(default_factory=list)
    opened: list[DisputeView] = field(default_factory=list)
    decided: list[DisputeView] = field(default_factory=list)

    def net(self) -> tuple[Net, ...]:
        """Net changes of verdicts, by name."""
        return net_changes(self.changes)

    def key(self, site: Site, week: str) -> str:
        """Digest of all of it, and of the pages that it links to."""
        others = [each.repo for each in self.gone]
        others += [each.repo for each in (*self.opened, *self.decided)]
        return digest(
            release_key(self.release),
            site.about(self.release).week_keys.get(week),
            self.gone,
            self.events,
            self.opened,
            self.decided,
            [site.routes.fork(self.release, repo) for repo in others],
        )


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
        shares = {name: Share(release, changes) for name, changes in release.once(by_week).items()}
        for name, kind, item in _happened(release):
            getattr(shares.setdefault(name, Share(release)), kind).append(item)
        for name, share in shares.items():
            found[name].append(share)
    return tuple(WeekPage(name, tuple(found[name])) for name in sorted(found, reverse=True))


def has_page(view: SiteView, name: str) -> bool:
    """Whether something happened in a week."""
    return any(
        name in release.once(by_week) or any(week == name for week, _, _ in _happened(release))
        for release in view.releases
    )


def _happened(release: ReleaseView) -> Iterator[tuple[str, str, object]]:
    """What else than changes of verdicts: (week, list of `Share`, item)."""
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
    keys = {week.name: digest([share.key(site, week.name) for share in week.shares]) for week in weeks}
    yield site.page(
        "changes.html", "changes/index.html", digest(site.week, keys), partial(_index, site, weeks)
    )
    for place, week in enumerate(weeks):
        later = weeks[place - 1].name if place else None
        earlier = weeks[place + 1].name if place + 1 < len(weeks) else None
        key = digest(keys[week.name], later, earlier)
        yield site.page("week.html", week.path, key, partial(_week, week, later, earlier))


def _index(site: Site, weeks: Sequence[WeekPage]) -> Values:
    firsts = first_verdicts(site.view.releases)
    return {"weeks": [(week, _counts(week)) for week in weeks], "trend": trend(firsts, site.week)}


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
