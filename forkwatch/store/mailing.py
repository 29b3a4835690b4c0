"""One digest per ISO week and recipient: claimed in the database before it is sent.

What is guaranteed: no two processes send one message at the same time, and what was noted as sent is never
sent again, also not with another content. What is not: when a process dies, or loses the connection, after
the server took the message and before that was noted, nobody can know whether it got through. Then the same
bytes are sent once more, with the same Message-ID, by which people and mail programs recognise the copy. The
other way, a message that nobody gets, would be worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlmodel import Session, col, select

from forkwatch.store.engine import insert_into
from forkwatch.store.models import MailingRow
from forkwatch.store.store import Store


class Refused(StrEnum):
    """Why a message cannot be claimed."""

    SENT = "sent"
    """It was sent before."""
    BUSY = "busy"
    """Another process is sending it."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What would be sent, if nothing was claimed before."""

    message_id: str
    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to send one message, until it ends."""

    week: str
    recipient: str
    message_id: str
    message: bytes
    attempt: int
    uncertain: bool
    """An earlier attempt may have got through."""


def claim(
    store: Store, week: str, recipient: str, draft: Callable[[], Draft], lease: timedelta
) -> Claim | Refused:
    """Claim a message in one transaction, before anything of it leaves the machine.

    The first claim keeps the message: later ones send the same bytes, whatever `draft` would say then.
    """
    address, now = recipient.lower(), store.now
    with store.writing() as session:
        row = _locked(session, week, address) or _first(session, week, address, draft(), now)
        if row.sent_at is not None:
            return Refused.SENT
        if row.claimed_until > now:
            return Refused.BUSY
        found = _claimed(row, now + lease)
        session.add(row)
        session.commit()
        return found


def note_sent(store: Store, held: Claim) -> bool:
    """Note that the server took it; False when the claim had passed to somebody else meanwhile."""
    return _note(store, held, sent_at=store.now, uncertain=False, error="")


def note_failed(store: Store, held: Claim, error: str, *, uncertain: bool) -> bool:
    """Give the claim back; `uncertain`: the server may have taken the message all the same.

    Once that is so it stays so: a later clear refusal says nothing about the earlier attempt.
    """
    return _note(store, held, sent_at=None, uncertain=uncertain or held.uncertain, error=error)


def sent_to(store: Store, week: str) -> dict[str, datetime | None]:
    """When the digest of a week was sent, by recipient; None where it was tried and is not known to be."""
    with store.session() as session:
        rows = session.exec(select(MailingRow).where(MailingRow.week == week))
        return {row.recipient: row.sent_at for row in rows}


def _first(session: Session, week: str, address: str, draft: Draft, now: datetime) -> MailingRow:
    """The row of a message that nobody has claimed; of two that add it at once, one waits for the other."""
    values = {
        "week": week,
        "recipient": address,
        "message_id": draft.message_id,
        "message": draft.message,
        "attempt": 0,
        "claimed_until": now,
        "uncertain": False,
        "error": "",
    }
    session.execute(insert_into(session, MailingRow).on_conflict_do_nothing(), [values])
    row = _locked(session, week, address)
    if row is None:
        raise AssertionError("it was inserted just now, by us or by another")
    return row


def _claimed(row: MailingRow, until: datetime) -> Claim:
    """While it is claimed it counts as uncertain, since nobody notes anything when a process dies."""
    before = row.uncertain
    row.attempt, row.claimed_until, row.uncertain = row.attempt + 1, until, True
    return Claim(
        week=row.week,
        recipient=row.recipient,
        message_id=row.message_id,
        message=row.message,
        attempt=row.attempt,
        uncertain=before,
    )


def _note(store: Store, held: Claim, *, sent_at: datetime | None, uncertain: bool, error: str) -> bool:
    with store.writing() as session:
        row = _locked(session, held.week, held.recipient)
        if row is None or row.attempt != held.attempt or row.sent_at is not None:
            return False
        row.sent_at, row.uncertain, row.error, row.claimed_until = sent_at, uncertain, error, store.now
        session.add(row)
        session.commit()
        return True


def _locked(session: Session, week: str, address: str) -> MailingRow | None:
    query = select(MailingRow).where(MailingRow.week == week, MailingRow.recipient == address)
    return session.exec(query.with_for_update().order_by(col(MailingRow.id))).first()
