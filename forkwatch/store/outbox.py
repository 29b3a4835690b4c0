"""Messages that must reach people: kept with what they tell, sent at least once, told apart by a key.

What is guaranteed: a message exists exactly if the verdict (or event) that it tells was committed, and it is
tried until somebody took it. It may arrive twice, when a process dies between the sending and the note of it;
the receiver knows the copy by its key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, or_, select, update

from forkwatch.jobs.interface import MAX_ERROR, backoff
from forkwatch.store.engine import insert_into, writing
from forkwatch.store.job_rows import OutboxRow
from forkwatch.store.messages import Message
from forkwatch.text import plain

_T = OutboxRow.__table__  # type: ignore[attr-defined]  # SQLModel does not say that a table has one


class Outbox:
    """The messages in the database of a store."""

    def __init__(self, engine: Engine, now: Callable[[], datetime]) -> None:
        self._engine = writing(engine)
        self._now = now

    def put(self, messages: Sequence[Message]) -> None:
        """Keep messages that tell no verdict."""
        with self._engine.begin() as connection:
            put_messages(connection, messages, self._now())

    def due(self, limit: int = 50) -> tuple[Message, ...]:
        """Those to be sent now, oldest first."""
        query = (
            select(_T)
            .where(_T.c.sent_at.is_(None), or_(_T.c.not_before.is_(None), _T.c.not_before <= self._now()))
            .order_by(_T.c.id)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return tuple(
            Message(kind=row.kind, key=row.key, payload=row.payload, id=row.id, attempts=row.attempts)
            for row in rows
        )

    def waiting(self) -> int:
        """How many have not been sent."""
        with self._engine.connect() as connection:
            waiting = select(func.count()).select_from(_T).where(_T.c.sent_at.is_(None))
            return connection.execute(waiting).scalar_one()

    def purge(self, before: datetime) -> int:
        """Forget messages that were sent before a time."""
        old = delete(_T).where(_T.c.sent_at < before)
        with self._engine.begin() as connection:
            return connection.execute(old).rowcount

    def sent(self, message: Message) -> None:
        """Somebody took it."""
        self._note(message, {"sent_at": self._now(), "error": ""})

    def failed(self, message: Message, error: str) -> None:
        """Nobody took it: it is tried again, later each time."""
        wait = backoff(message.attempts + 1)
        self._note(message, {"error": plain(error, MAX_ERROR), "not_before": self._now() + wait})

    def _note(self, message: Message, values: dict[str, Any]) -> None:
        with self._engine.begin() as connection:
            noted = update(_T).where(_T.c.id == message.id)
            connection.execute(noted.values(attempts=message.attempts + 1, **values))


def put_messages(connection: Connection, messages: Sequence[Message], now: datetime) -> None:
    """Keep messages within the transaction of what they tell."""
    if not messages:
        return
    rows = [
        {
            "key": message.key,
            "kind": message.kind,
            "payload": dict(message.payload),
            "created_at": now,
            "attempts": 0,
            "error": "",
        }
        for message in messages
    ]
    connection.execute(insert_into(connection, _T).on_conflict_do_nothing(index_elements=["key"]), rows)
