"""A queue of jobs in the database: claimed by lease, retried a few times, then set aside in sight.

Read this first. Nothing else holds state: a worker that dies takes a lease with it, which runs out, and the
job is claimed again. So a job may run twice, never be lost; what it does must bear that, and everything that
it *says* (what it found, what is to be done next) is believed only from whoever still holds the lease, in the
transaction that finishes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a worker needs to do a job, and so who claims it."""

    CRAWL = "crawl"
    """The Hub's listings."""
    READ = "read"
    """Bytes of a fork: match, sketch, diff. Network and one core."""
    EVAL = "eval"
    """Forward passes. A GPU, or many cores."""
    PUBLISH = "publish"
    """The site, the digest, messages to people."""


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    """Waiting, perhaps until a time."""
    RUNNING = "running"
    """Leased by a worker."""
    DONE = "done"
    QUARANTINED = "quarantined"
    """It failed too often. Shown in the report; `forkwatch queue retry` tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be done once."""

    kind: str
    """Which handler."""
    key: str
    """What makes it the same job: two with one key are one row, whenever they are asked for."""
    role: Role
    payload: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""
    priority: float = 0.0
    """Higher first; then older first."""
    max_attempts: int = 3
    not_before: datetime | None = None
    again: bool = False
    """Asked for after it was done, it is to be done again; while it runs, once more after that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it stands in the queue."""

    id: int
    kind: str
    key: str
    role: Role
    payload: Mapping[str, Any]
    priority: float
    state: JobState
    attempts: int
    """Begun, this one included."""
    max_attempts: int
    lease: str
    """Secret of the claim; empty when nobody holds it."""
    owner: str
    """Who holds or held it, for people."""
    leased_until: datetime | None
    not_before: datetime | None
    created_at: datetime
    finished_at: datetime | None
    error: str
    """Of the last attempt that failed, one line; hostile text."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many jobs of one role are in one state, and since when the oldest waits."""

    role: Role
    state: JobState
    count: int
    oldest: datetime


LEASE = timedelta(minutes=2)
"""A worker that has not said for this long that it lives is dead. It says so every quarter of it."""

MAX_ERROR = 500
"""Characters of an error that are kept."""


def backoff(attempts: int) -> timedelta:
    """How long a job waits after that many failed attempts: 1, 4, 16 … minutes, a day at most."""
    return min(timedelta(minutes=4 ** max(0, attempts - 1)), timedelta(days=1))
