"""What became of guarded releases upstream: noticed once, and open until somebody decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlmodel import col, select

from forkwatch.store.models import ReleaseEventRow
from forkwatch.store.store import Store


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


_STILL = (None, Decision.KEPT, Decision.NONE_NEEDED)
"""Decisions that hold as long as the difference does: it is not noted again."""


def note_changes(store: Store, release_id: int, found: Sequence[UpstreamChange]) -> int:
    """Keep what a look has shown; the number of events that are new.

    Law: the same look twice notes nothing the second time. An open event that the look does not show any more
    has passed.
    """
    with store.writing() as session:
        rows = session.exec(
            select(ReleaseEventRow)
            .where(ReleaseEventRow.release_id == release_id)
            .order_by(col(ReleaseEventRow.id))
        ).all()
        seen = {_key(change) for change in found}
        for row in rows:
            if row.decision is None and (row.kind, row.before, row.after) not in seen:
                row.decision, row.decided_at = Decision.PASSED, store.now
                session.add(row)
        known = {(row.kind, row.before, row.after) for row in rows if row.decision in _STILL}
        new = [change for change in found if _key(change) not in known]
        session.add_all(_row(release_id, change, store.now) for change in new)
        session.commit()
        return len(new)


def decide(store: Store, release_id: int, decision: Decision) -> int:
    """Close the open events of a release; how many there were.

    A pin can be kept against what the Hub shows, not against the settings: those are the user's own.
    """
    query = select(ReleaseEventRow).where(
        ReleaseEventRow.release_id == release_id, col(ReleaseEventRow.decision).is_(None)
    )
    if decision is Decision.KEPT:
        query = query.where(ReleaseEventRow.kind != str(UpstreamKind.SETTINGS_CHANGED))
    with store.writing() as session:
        rows = session.exec(query).all()
        for row in rows:
            row.decision, row.decided_at = decision, store.now
            session.add(row)
        session.commit()
        return len(rows)


def upstream_events(store: Store, release_id: int) -> tuple[UpstreamEvent, ...]:
    """All events of a release, oldest first."""
    with store.session() as session:
        rows = session.exec(
            select(ReleaseEventRow)
            .where(ReleaseEventRow.release_id == release_id)
            .order_by(col(ReleaseEventRow.id))
        ).all()
    return tuple(_event(row) for row in rows)


def open_events(events: Iterable[UpstreamEvent]) -> tuple[UpstreamEvent, ...]:
    """Those that somebody has to decide about."""
    return tuple(event for event in events if event.is_open)


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
