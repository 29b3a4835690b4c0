"""Tables of the daemon: jobs, messages to people, and when a schedule last ran."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, Index, text
from sqlmodel import Field, SQLModel

from forkwatch.store.models import UtcDateTime

IS_QUEUED, IS_RUNNING = text("state = 'queued'"), text("state = 'running'")
"""Spelled out, not as parameters: only so do both databases see that a partial index will do."""


class JobRow(SQLModel, table=True):
    """One job (`forkwatch.jobs.interface`)."""

    __tablename__: ClassVar[str] = "job"
    __table_args__ = (
        # What a claim walks along: the best queued job of a role. Those that are done are in neither index.
        Index("ix_job_queued", "role", "priority", "id", sqlite_where=IS_QUEUED, postgresql_where=IS_QUEUED),
        Index("ix_job_running", "id", sqlite_where=IS_RUNNING, postgresql_where=IS_RUNNING),
    )

    id: int | None = Field(default=None, primary_key=True)
    kind: str
    key: str = Field(unique=True)
    role: str
    payload: dict[str, Any] = Field(sa_type=JSON)
    priority: float
    """Stored negated, so that one ascending index gives the best first."""
    state: str
    attempts: int = 0
    max_attempts: int
    lease: str = ""
    owner: str = ""
    leased_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    not_before: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    error: str = ""
    once_more: bool = False
    """It was asked for again while it ran."""


class OutboxRow(SQLModel, table=True):
    """A message that must reach people, written in the transaction of what it tells."""

    __tablename__: ClassVar[str] = "outbox"

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    """Idempotency key: the receiver may see a message twice, and knows it by this."""
    kind: str
    payload: dict[str, Any] = Field(sa_type=JSON)
    created_at: datetime = Field(sa_type=UtcDateTime)
    attempts: int = 0
    not_before: datetime | None = Field(default=None, sa_type=UtcDateTime)
    sent_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    error: str = ""


class ScheduleRow(SQLModel, table=True):
    """When a scheduled task was last asked for, and last succeeded: what catches up after downtime."""

    __tablename__: ClassVar[str] = "schedule"

    task: str = Field(primary_key=True)
    first_asked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    asked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    succeeded_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
