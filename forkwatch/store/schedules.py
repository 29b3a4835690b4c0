"""When scheduled tasks were last asked for, and last succeeded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select

from forkwatch.store.engine import insert_into, writing
from forkwatch.store.job_rows import ScheduleRow

_T = ScheduleRow.__table__  # type: ignore[attr-defined]  # SQLModel does not say that a table has one


class Schedules:
    """The notes in the database of a store."""

    def __init__(self, engine: Engine, now: Callable[[], datetime]) -> None:
        self._engine = writing(engine)
        self._now = now

    def asked(self, task: str) -> None:
        """It was asked for."""
        self._note(task, "asked_at")

    def succeeded(self, task: str) -> None:
        """It was done."""
        self._note(task, "succeeded_at")

    def last_asked(self, task: str) -> datetime | None:
        """When it was last asked for; None: never."""
        return self._last(task, _T.c.asked_at)

    def last_success(self, task: str) -> datetime | None:
        """When it last succeeded; None: never."""
        return self._last(task, _T.c.succeeded_at)

    def first_asked(self, task: str) -> datetime | None:
        """When it was asked for the first time; None: never."""
        return self._last(task, _T.c.first_asked_at)

    def _note(self, task: str, column: str) -> None:
        now = self._now()
        with self._engine.begin() as connection:
            values = {column: now}
            put = insert_into(connection, _T).values(task=task, first_asked_at=now, **values)
            connection.execute(put.on_conflict_do_update(index_elements=["task"], set_=values))

    def _last(self, task: str, column: Any) -> datetime | None:
        with self._engine.connect() as connection:
            found: datetime | None = connection.execute(select(column).where(_T.c.task == task)).scalar()
        return found
