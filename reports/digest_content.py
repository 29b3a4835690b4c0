"""What a week's digest says, before it is put into HTML and text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Generic, TypeVar

from reports.interface import (
    DisputeView,
    Gap,
    InvalidWeekError,
    ReleaseEvent,
    ReleaseView,
    SiteView,
)
from reports.numbers import moment, plural, week_of
from reports.routes import Routes, sorted_releases
from reports.rows import ForkRow, counted
from reports.scan import is_reduced
from reports.summary import Funnel, Net, Past, attention, funnel, gone_in, week_changes
from reports.text import clean
from reports.words import VERDICTS

T = TypeVar("T")

_WEEK = re.compile(r"(\d{4})-W(\d{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Item:
    """One fork in the digest."""

    release: ReleaseView
    net: Net
    summary: str
    isolation: str
    """What was missing when its behaviour was measured; empty when nothing was."""
    page: str | None
    withdrawn: bool
    """The verdict was taken back."""


@dataclass(frozen=True, slots=True)
class Case:
    """A dispute, or a verdict that was taken back."""

    dispute: DisputeView
    page: str | None


@dataclass(frozen=True, slots=True)
class Move:
    """What became of a guarded release upstream."""

    release: ReleaseView
    event: ReleaseEvent


@dataclass(frozen=True, slots=True)
class Rows(Generic[T]):
    """The first of them, and how many there are in all."""

    shown: tuple[T, ...]
    total: int

    @property
    def more(self) -> int:
        """How many are left to the site."""
        return self.total - len(self.shown)

    def cut(self, most: int) -> Rows[T]:
        """At most so many of them."""
        return Rows(self.shown[:most], self.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a digest says."""

    week: str
    first_day: date
    last_day: date
    moves: Rows[Move]
    """Of guarded releases upstream, whenever it was: each still waits for a decision."""
    moved: int
    """How many releases that is about."""
    disputes: Rows[Case]
    """Open, and opened in this week or before."""
    decide: Rows[Item]
    """Forks that got a verdict in this week which asks for a decision."""
    waiting: int
    """Forks whose verdict of an earlier week asks for a decision as well."""
    new: Rows[Item]
    changed: Rows[Item]
    gone: Rows[Gap]
    """Had a verdict, and were found to be gone in this week."""
    settled: Rows[Case]
    """Disputes that were decided in this week, and verdicts that were withdrawn."""
    withdrawn: int
    """How many of `settled` took a verdict back."""
    untrusted: Rows[ReleaseView]
    """Releases whose signature is not verified."""
    funnel: Funnel

    @property
    def asking(self) -> int:
        """How many things need a decision: releases, disputes and forks."""
        return self.moves.total + self.disputes.total + self.decide.total

    @property
    def also(self) -> str:
        """What happened besides, in a few words."""
        counts = (
            (self.new.total, "new"),
            (self.changed.total, "changed"),
            (self.gone.total, "gone"),
            (self.withdrawn, "withdrawn"),
        )
        return ", ".join(f"{count:,} {word}" for count, word in counts if count)

    @property
    def subject(self) -> str:
        """Of the mail: numbers only, so that no name can get into a header."""
        moved = f"{plural(self.moved, 'release')} changed upstream" if self.moved else ""
        disputed = f"{plural(self.disputes.total, 'dispute')} open" if self.disputes.total else ""
        decide = f"{_forks(self.decide.total)} a decision" if self.decide.total else ""
        said = ", ".join(part for part in (moved, disputed, decide, self.also) if part)
        return f"forkwatch {self.week}: {said or 'no change'}"

    @property
    def summary(self) -> tuple[str, ...]:
        """The week in at most six sentences, what asks for a decision first."""
        return tuple(_sentences(self))

    def cut(self, most: int) -> Content:
        """With at most so many rows in each table."""
        return replace(
            self,
            moves=self.moves.cut(most),
            disputes=self.disputes.cut(most),
            decide=self.decide.cut(most),
            new=self.new.cut(most),
            changed=self.changed.cut(most),
            gone=self.gone.cut(most),
            settled=self.settled.cut(most),
            untrusted=self.untrusted.cut(most),
        )


def content_of(view: SiteView, week: str, addresses: Routes) -> Content:
    """All that happened in an ISO week, and what still waits.

    Raises:
        InvalidWeekError: not an ISO week.
    """
    first = monday(week)
    items: list[Item] = []
    gone: list[Gap] = []
    cases: list[Case] = []
    for release in sorted_releases(view):
        items += _items(release, week, addresses)
        gone += gone_in(release, week)
        cases += (
            Case(each, addresses.fork(release, each.repo))
            for each in sorted(release.disputes, key=lambda each: (each.opened_at, each.id))
        )
    decide = [item for item in items if VERDICTS[item.net.after].attention and not item.withdrawn]
    rest = [item for item in items if not VERDICTS[item.net.after].attention]
    decided = {(item.release.repo, item.net.repo) for item in decide}
    moves = [Move(release, event) for release in sorted_releases(view) for event in release.to_decide]
    settled = [case for case in cases if _settled_in(case, week)]
    return Content(
        week=week,
        first_day=first,
        last_day=first + timedelta(days=6),
        moves=_rows(moves),
        moved=sum(bool(release.to_decide) for release in view.releases),
        disputes=_rows([case for case in cases if _open_by(case, first + timedelta(days=6))]),
        decide=_rows(decide),
        waiting=sum(
            (item.release.repo, item.scan.repo) not in decided
            and moment(item.since).date() <= first + timedelta(days=6)
            for item in attention(view)
        ),
        new=_rows([item for item in rest if item.net.before is None]),
        changed=_rows([item for item in rest if item.net.before is not None]),
        gone=_rows(gone),
        settled=_rows(settled),
        withdrawn=sum(case.dispute.status == "withdrawn" for case in settled),
        untrusted=_rows(
            [release for release in sorted_releases(view) if release.original.signature != "verified"]
        ),
        funnel=funnel(view.releases),
    )


def monday(week: str) -> date:
    """The first day of an ISO week.

    Raises:
        InvalidWeekError: it is none.
    """
    match = _WEEK.fullmatch(week)
    try:
        if match is not None:
            return date.fromisocalendar(int(match[1]), int(match[2]), 1)
    except ValueError as error:
        raise InvalidWeekError(_no_week(week)) from error
    raise InvalidWeekError(_no_week(week))


def _no_week(week: str) -> str:
    return f"{clean(week, 40)!r} is no ISO week"


def _items(release: ReleaseView, week: str, addresses: Routes) -> Iterator[Item]:
    past = release.once(Past)
    rows = {row.repo: row for row in release.scans}
    for net in week_changes(release, week):
        row = rows.get(net.repo)
        about = row if row is not None and row.verdict.label == net.after else None
        yield Item(
            release=release,
            net=net,
            summary="" if about is None else about.verdict.summary,
            isolation=_isolation(about),
            page=addresses.fork(release, net.repo),
            withdrawn=about is not None and past.withdrawn(net.repo) is not None,
        )


def _isolation(row: ForkRow | None) -> str:
    """That the fork was run with reduced isolation, as long as that is about the verdict that is reported."""
    isolation = "" if row is None else counted(row).isolation
    return isolation if is_reduced(isolation) else ""


def _open_by(case: Case, last_day: date) -> bool:
    return case.dispute.status == "open" and moment(case.dispute.opened_at).date() <= last_day


def _settled_in(case: Case, week: str) -> bool:
    at = case.dispute.decided_at
    return at is not None and week_of(at) == week


def _rows(items: Sequence[T]) -> Rows[T]:
    return Rows(tuple(items), len(items))


def _forks(count: int) -> str:
    return f"{plural(count, 'fork')} {'needs' if count == 1 else 'need'}"


def _sentences(content: Content) -> Iterator[str]:
    if content.moved:
        verb = "needs" if content.moved == 1 else "need"
        yield f"{plural(content.moved, 'release')} changed upstream and {verb} a decision."
    if content.decide.total:
        yield f"{_forks(content.decide.total)} a decision."
    else:
        yield "No fork got a verdict this week that asks for a decision."
    if content.disputes.total:
        yield f"{plural(content.disputes.total, 'dispute is', 'disputes are')} open."
    if content.also:
        yield f"Also: {content.also}."
    counts = content.funnel
    judged = f"{counts.judged:,} of {plural(counts.candidates, 'candidate')} have a verdict"
    yield f"{judged}, {counts.evaluated:,} with behaviour measured."
    missing = sum(reason.count for reason in counts.gaps) + sum(reason.count for reason in counts.lost)
    if missing:
        yield f"{plural(missing, 'fork')} could not be examined as they are now; the reasons are below."
