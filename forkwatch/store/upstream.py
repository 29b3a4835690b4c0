"""What became of guarded releases upstream: noticed once, and open until somebody decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlmodel import Session, col, select

from forkwatch.store.models import Release, ReleaseEventRow
from forkwatch.store.store import Store, put_release


class UpstreamKind(StrEnum):
    """In what the Hub, or the settings, differ from the pin."""

    NEW_COMMIT = "new-commit"
    SIGNER_CHANGED = "signer-changed"
    """Another one of the trusted signers."""
    SIGNATURE_UNTRUSTED = "signature-untrusted"
    """The bundle is broken, or of somebody whom nobody trusts."""
    SIGNATURE_MISMATCH = "signature-mismatch"
    """The bundle is good, and the files beside it are not the ones it signs."""
    SIGNATURE_REMOVED = "signature-removed"
    SIGNATURE_ADDED = "signature-added"
    SIGNATURE_CHANGED = "signature-changed"
    """Nobody is trusted, and the bundle is another one."""
    SIGNATURE_UNREADABLE = "signature-unreadable"
    BRANCH_REMOVED = "branch-removed"
    RENAMED = "renamed"
    REREGISTERED = "re-registered"
    """The name is the same, the repository is another one."""
    DELETED = "deleted"
    """Gone or private: the Hub does not tell which."""
    SETTINGS_CHANGED = "settings-changed"
    """The settings trust others, or pin another commit, than what the release was added with."""


class Decision(StrEnum):
    """What became of an event."""

    ADOPTED = "adopted"
    """The pin was moved, or set again."""
    KEPT = "kept"
    """Somebody decided to stay with the pin."""
    LAPSED = "lapsed"
    """It was kept, and is not so any more: should it be so again, it is asked again."""
    PASSED = "passed"
    """It is not so any more, or another event took its place."""
    NONE_NEEDED = "none-needed"
    """The same signer, and the same files."""


@dataclass(frozen=True, slots=True)
class UpstreamChange:
    """One difference, as a look shows it."""

    kind: UpstreamKind
    before: str
    """Commits, names or ids, as the kind has it."""
    after: str
    note: str
    asks: bool = True
    """Somebody has to decide."""


@dataclass(frozen=True, slots=True)
class UpstreamEvent:
    """A difference, since when it is known, and what was decided."""

    change: UpstreamChange
    at: datetime
    decision: Decision | None
    decided_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Somebody has to decide."""
        return self.decision is None


_ENDS: Mapping[str | None, Decision] = {
    None: Decision.PASSED,
    Decision.KEPT: Decision.LAPSED,
    Decision.NONE_NEEDED: Decision.PASSED,
}
"""Decisions that hold as long as the difference does, and what becomes of them then."""


def note_changes(store: Store, release_id: int, found: Sequence[UpstreamChange]) -> int:
    """Keep what a look has shown; the number of events that are new.

    Law: the same look twice notes nothing the second time. What the look does not show any more has passed,
    be it open or decided: a decision is about what was there, not about what comes back. Nor does a look that
    needed no decision speak for a later one that asks for it.
    """
    with store.writing() as session:
        shown, held = {_key(change): change for change in found}, set()
        for row in _locked(session, release_id):
            if row.decision not in _ENDS:
                continue
            key = row.kind, row.before, row.after
            change = shown.get(key)
            if change is None or (change.asks and row.decision == Decision.NONE_NEEDED):
                _end(row, store.now)
            else:
                held.add(key)
        new = [change for change in found if _key(change) not in held]
        session.add_all(_row(release_id, change, store.now) for change in new)
        session.commit()
        return len(new)


def keep_pin(store: Store, release_id: int) -> tuple[UpstreamEvent, ...]:
    """Decide to stay with the pin; the open events, which that closes.

    A pin can be kept against what the Hub shows, not against the settings: those are the user's own.
    """
    with store.writing() as session:
        closed = [
            row
            for row in _locked(session, release_id)
            if row.decision is None and row.kind != UpstreamKind.SETTINGS_CHANGED
        ]
        events = tuple(_event(row) for row in closed)
        for row in closed:
            row.decision, row.decided_at = Decision.KEPT, store.now
        session.commit()
        return events


def move_pin(store: Store, release: Release) -> Release:
    """Store a pin, or a trust, in place of the one before; what was open or decided about that is settled.

    All of it or nothing: a pin that had moved without its events would ask about what was adopted.
    """
    with store.writing() as session:
        stored = put_release(session, release)
        session.flush()
        if stored.id is None:
            raise AssertionError("a stored release has an id")
        for row in _locked(session, stored.id):
            if row.decision is None:
                row.decision, row.decided_at = Decision.ADOPTED, store.now
            elif row.decision in _ENDS:
                _end(row, store.now)
        session.commit()
        return stored


def upstream_events(store: Store, release_id: int) -> tuple[UpstreamEvent, ...]:
    """All events of a release, oldest first."""
    with store.session() as session:
        return tuple(_event(row) for row in _rows(session, release_id))


def open_events(events: Iterable[UpstreamEvent]) -> tuple[UpstreamEvent, ...]:
    """Those that somebody has to decide about."""
    return tuple(event for event in events if event.is_open)


def _rows(session: Session, release_id: int) -> Sequence[ReleaseEventRow]:
    query = select(ReleaseEventRow).where(ReleaseEventRow.release_id == release_id)
    return session.exec(query.order_by(col(ReleaseEventRow.id))).all()


def _locked(session: Session, release_id: int) -> Sequence[ReleaseEventRow]:
    """As `_rows`, and nobody else adds to them until this session ends: PostgreSQL has many writers."""
    session.exec(select(Release.id).where(Release.id == release_id).with_for_update()).first()
    return _rows(session, release_id)


def _end(row: ReleaseEventRow, now: datetime) -> None:
    """What somebody decided keeps its date."""
    if row.decision != Decision.KEPT:
        row.decided_at = now
    row.decision = _ENDS[row.decision]


def _key(change: UpstreamChange) -> tuple[str, str, str]:
    return str(change.kind), change.before, change.after


def _row(release_id: int, change: UpstreamChange, now: datetime) -> ReleaseEventRow:
    return ReleaseEventRow(
        release_id=release_id,
        kind=str(change.kind),
        before=change.before,
        after=change.after,
        note=change.note,
        at=now,
        decision=None if change.asks else Decision.NONE_NEEDED,
        decided_at=None if change.asks else now,
    )


def _event(row: ReleaseEventRow) -> UpstreamEvent:
    decision = None if row.decision is None else Decision(row.decision)
    change = UpstreamChange(
        UpstreamKind(row.kind),
        row.before,
        row.after,
        row.note,
        asks=decision is not Decision.NONE_NEEDED,
    )
    return UpstreamEvent(change, row.at, decision, row.decided_at)
