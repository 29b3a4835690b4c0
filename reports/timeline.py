"""What became of a fork, in one list: the Hub's events, our verdicts, and disputes about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reports.context import Fork
from reports.interface import DisputeView, HistoryEvent, VerdictChange
from reports.numbers import moment
from reports.scan import ScanDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One line."""

    at: str
    """ISO 8601, UTC."""
    kind: Literal["created", "seen", "event", "verdict", "scan", "opened", "decided"]
    event: HistoryEvent | None = None
    change: VerdictChange | None = None
    dispute: DisputeView | None = None


def timeline(fork: Fork, scan: ScanDocument) -> tuple[Moment, ...]:
    """Oldest first. A time that is none is left out: it came from the Hub."""
    return tuple(sorted((each for each in _moments(fork, scan) if _is_time(each.at)), key=_when))


def _when(each: Moment) -> float:
    return moment(each.at).timestamp()


def _is_time(text: str) -> bool:
    try:
        moment(text)
    except ValueError:
        return False
    return True


def _moments(fork: Fork, scan: ScanDocument) -> Iterator[Moment]:
    if scan.hub.created_at is not None:
        yield Moment(at=scan.hub.created_at, kind="created")
    if fork.history is not None:
        yield Moment(at=fork.history.first_seen, kind="seen")
        for event in fork.history.events:
            yield Moment(at=event.at, kind="event", event=event)
    for change in fork.changes:
        yield Moment(at=change.at, kind="verdict", change=change)
    if all(moment(change.at) < moment(scan.scanned_at) for change in fork.changes if _is_time(change.at)):
        yield Moment(at=scan.scanned_at, kind="scan")
    for dispute in fork.disputes:
        if dispute.statement:  # else a withdrawal that nobody had asked for
            yield Moment(at=dispute.opened_at, kind="opened", dispute=dispute)
        if dispute.decided_at is not None:
            yield Moment(at=dispute.decided_at, kind="decided", dispute=dispute)
