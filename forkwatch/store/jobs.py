"""The job queue on SQLite and PostgreSQL, by the same statements.

PostgreSQL skips rows that another claim has locked (`FOR UPDATE SKIP LOCKED`). SQLite has one writer at a
time, and a claim takes the write lock before it looks (`BEGIN IMMEDIATE`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Text,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)

from forkwatch.jobs.interface import LEASE, MAX_ERROR, Depth, Job, JobState, NewJob, Role, backoff
from forkwatch.jobs.owner import is_dead
from forkwatch.store.engine import insert_into, one_statement, writing
from forkwatch.store.job_rows import IS_QUEUED, IS_RUNNING, JobRow
from forkwatch.store.job_statements import FINISHED, claim_values, claims, end_values, finishes_and_claims
from forkwatch.store.repos import chunks
from forkwatch.text import plain

_T = JobRow.__table__  # type: ignore[attr-defined]  # SQLModel does not say that a table has one
_CHUNK = 500
_OVER = (JobState.DONE.value, JobState.QUARANTINED.value)


class JobQueue:
    """Jobs in the database of a store."""

    def __init__(self, engine: Engine, now: Callable[[], datetime]) -> None:
        self._engine = writing(engine)
        self._once = one_statement(engine)
        self._now = now

    # --- asking ---

    def enqueue(self, jobs: Sequence[NewJob]) -> int:
        """Ask for jobs; how many are new. One that waits gets the higher priority of the two."""
        with self._engine.begin() as connection:
            return put_jobs(connection, jobs, self._now())

    # --- doing ---

    def claim(self, roles: Sequence[Role], owner: str, lease: timedelta = LEASE) -> Job | None:
        """The best job of these roles that may run now, leased; None: there is none."""
        with self._once.begin() as connection:
            row = connection.execute(
                claims(frozenset(roles)), claim_values(self._now(), owner, lease)
            ).first()
        return None if row is None else _job(row)

    def extend(self, job: Job, lease: timedelta = LEASE) -> bool:
        """The worker lives. False: the lease is lost, and so is the right to say anything about the job."""
        return self._while_held(job, {"leased_until": self._now() + lease})

    def finish(self, job: Job, then: Sequence[NewJob] = ()) -> bool:
        """Done, and what is next, in one transaction. False: the lease was lost, and nothing is kept."""
        now = self._now()
        with (self._engine if then else self._once).begin() as connection:
            if connection.execute(FINISHED, end_values(job, now)).rowcount != 1:
                return False
            put_jobs(connection, then, now)
            return True

    def finish_and_claim(
        self, job: Job, then: Sequence[NewJob], roles: Sequence[Role], owner: str
    ) -> tuple[bool, Job | None]:
        """`finish`, the lease held or not, and on PostgreSQL `claim` with it, where nothing is next.

        The disk is waited for once. On SQLite it would hold the only writer's lock for longer.
        """
        if self._engine.dialect.name != "postgresql" or then:
            return self.finish(job, then), None
        now = self._now()
        values = end_values(job, now) | claim_values(now, owner, LEASE)
        with self._once.begin() as connection:
            both = connection.execute(finishes_and_claims(frozenset(roles)), values).one()
        return both.finished == 1, None if both.id is None else _job(both)

    def fail(self, job: Job, error: str, *, final: bool = False) -> JobState | None:
        """It failed: wait and try again, or set it aside after the last attempt (or now, `final`).

        None: the lease was lost, nothing is kept.
        """
        now = self._now()
        last = final or job.attempts >= job.max_attempts
        state = JobState.QUARANTINED if last else JobState.QUEUED
        values = {
            "state": state.value,
            "lease": "",
            "leased_until": None,
            "error": plain(error, MAX_ERROR),
            "finished_at": now if last else None,
            "not_before": None if last else now + backoff(job.attempts),
        }
        return state if self._while_held(job, values) else None

    def give_back(self, job: Job) -> bool:
        """Unfinished, and not its fault: the worker is told to stop. The attempt does not count."""
        values = {
            "state": JobState.QUEUED.value,
            "lease": "",
            "leased_until": None,
            "attempts": job.attempts - 1,
        }
        return self._while_held(job, values)

    def _while_held(self, job: Job, values: Mapping[str, Any]) -> bool:
        """Note something about a job. False: the lease was lost, nothing is kept."""
        with self._once.begin() as connection:
            return connection.execute(update(_T).where(*_held(job)).values(values)).rowcount == 1

    def require_writable(self) -> None:
        """See that the database answers, and that nobody holds its write lock.

        Raises:
            DBAPIError: it does not, or somebody does.
        """
        with self._engine.begin() as connection:
            connection.execute(select(1))

    def leases(self) -> frozenset[tuple[str, datetime | None]]:
        """The leases that are held, and until when."""
        running = select(_T.c.lease, _T.c.leased_until).where(IS_RUNNING)
        with self._engine.connect() as connection:
            return frozenset((lease, until) for lease, until in connection.execute(running))

    def reap(self, stale: Collection[str] | None = None) -> int:
        """Take back jobs whose worker has died: queued again, or set aside after the last attempt.

        A worker of this machine is known to be dead when its process is gone; of another, when its lease has
        run out: by the clock (None), or by whoever has seen that it is not extended (`stale`).
        """
        with self._engine.begin() as connection:
            holders = connection.execute(select(_T.c.owner).where(IS_RUNNING).distinct()).scalars()
            dead = [name for name in holders if is_dead(name)]
            over = _T.c.leased_until < self._now() if stale is None else _T.c.lease.in_(stale)
            lost = or_(over, _T.c.owner.in_(dead))
            spent = _T.c.attempts >= _T.c.max_attempts
            back = update(_T).where(IS_RUNNING, lost)
            back = back.values(
                state=case((spent, JobState.QUARANTINED.value), else_=JobState.QUEUED.value),
                finished_at=case((spent, self._now()), else_=None),
                lease="",
                leased_until=None,
                error="the worker died or was killed",
            )
            return connection.execute(back).rowcount

    def clock_went_back(self, by: timedelta) -> None:
        """Waits end as much earlier, and crawls that were asked for in what is the future now may be again.

        Nothing else looks at the time; what was found stays.
        """
        now = self._now()
        waits = select(_T.c.id, _T.c.not_before).where(IS_QUEUED, _T.c.not_before > now)
        ahead = delete(_T).where(_T.c.kind == "crawl", _T.c.created_at > now, _T.c.state.in_(_OVER))
        with self._engine.begin() as connection:
            for row in connection.execute(waits).all():
                earlier = update(_T).where(_T.c.id == row.id).values(not_before=row.not_before - by)
                connection.execute(earlier)
            connection.execute(ahead)

    # --- looking ---

    def jobs(self, *, state: JobState | None = None, limit: int = 100) -> tuple[Job, ...]:
        """Jobs in the order in which they would be claimed."""
        query = select(_T).order_by(_T.c.priority, _T.c.id).limit(limit)
        if state is not None:
            query = query.where(_T.c.state == state.value)
        with self._engine.connect() as connection:
            return tuple(map(_job, connection.execute(query)))

    def is_done(self, key: str) -> bool:
        """Whether the job of that key was done."""
        query = select(_T.c.id).where(_T.c.key == key, _T.c.state == JobState.DONE.value)
        with self._engine.connect() as connection:
            return connection.execute(query).first() is not None

    def depths(self) -> tuple[Depth, ...]:
        """Counts by role and state."""
        query = (
            select(_T.c.role, _T.c.state, func.count(), func.min(_T.c.created_at))
            .group_by(_T.c.role, _T.c.state)
            .order_by(_T.c.role, _T.c.state)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return tuple(Depth(Role(role), JobState(state), count, oldest) for role, state, count, oldest in rows)

    def retry(self, ids: Sequence[int] | None = None) -> int:
        """Give jobs that were set aside another full set of attempts; None: all of them."""
        return self._retry([] if ids is None else [_T.c.id.in_(ids)])

    def retry_failed(self, errors: Collection[str], before: datetime) -> int:
        """The same for those set aside before a time, and by one of these errors (names of classes)."""
        by = or_(*(_T.c.error.startswith(f"{name}:", autoescape=True) for name in sorted(errors)))
        return self._retry([_T.c.finished_at < before, by])

    def _retry(self, which: Sequence[ColumnElement[bool]]) -> int:
        again = (
            update(_T)
            .where(_T.c.state == JobState.QUARANTINED.value, *which)
            .values(state=JobState.QUEUED.value, attempts=0, not_before=None, finished_at=None)
        )
        with self._engine.begin() as connection:
            return connection.execute(again).rowcount

    def purge(self, before: datetime) -> int:
        """Forget jobs that were done before a time; what they found stays. Those set aside stay too."""
        old = delete(_T).where(_T.c.state == JobState.DONE.value, _T.c.finished_at < before)
        with self._engine.begin() as connection:
            return connection.execute(old).rowcount

    def forget_made_up(self, kind: str) -> int:
        """Forget jobs of a kind that were set aside, where a later one about the same was done; how many."""
        aside, later = _T, _T.alias()
        made_up = exists().where(
            later.c.kind == kind,
            later.c.id > aside.c.id,
            later.c.state == JobState.DONE.value,
            cast(later.c.payload, Text) == cast(aside.c.payload, Text),
        )
        moot = delete(aside).where(aside.c.kind == kind, aside.c.state == JobState.QUARANTINED.value, made_up)
        with self._engine.begin() as connection:
            return connection.execute(moot).rowcount


def put_jobs(connection: Connection, jobs: Sequence[NewJob], now: datetime) -> int:
    """Ask for jobs within somebody's transaction; how many are new."""
    return sum(_put(connection, chunk, now) for chunk in chunks(jobs, _CHUNK))


def _put(connection: Connection, jobs: Sequence[NewJob], now: datetime) -> int:
    """Looks first: a crawl asks for every fork there is, and nearly all have been asked for before."""
    asked = select(_T.c.key, _T.c.state, _T.c.priority).where(_T.c.key.in_([job.key for job in jobs]))
    known = {key: (state, priority) for key, state, priority in connection.execute(asked)}
    rows = [_row(job, now) for job in jobs if job.key not in known]
    fresh: set[str] = set()
    if rows:
        added = insert_into(connection, _T).on_conflict_do_nothing(index_elements=["key"]).returning(_T.c.key)
        fresh = set(connection.execute(added, rows).scalars())
    better = []
    for job in jobs:
        if job.key in fresh:
            continue
        if job.again:
            _again(connection, _row(job, now))
            continue
        state, priority = known.get(job.key, (JobState.QUEUED, math.inf))  # else of another process, just now
        if state == JobState.QUEUED and priority > -job.priority:
            better.append({"asked": job.key, "better": -job.priority})
    if better:
        connection.execute(_RAISED, better)
    return len(fresh)


_RAISED = (
    update(_T)
    .where(_T.c.key == bindparam("asked"), IS_QUEUED, _T.c.priority > bindparam("better"))
    .values(priority=bindparam("better"))
)
"""One statement for many rows: each day, every fork that waits has waited longer."""


def _again(connection: Connection, row: Mapping[str, Any]) -> None:
    """Done or set aside: queued once more. Running: noted, so that its end queues it. Waiting: it will do."""
    same = _T.c.key == row["key"]
    over = _T.c.state.in_(_OVER)
    values = {
        "state": JobState.QUEUED.value,
        "attempts": 0,
        "not_before": row["not_before"],
        "finished_at": None,
    }
    connection.execute(update(_T).where(same, over).values(values))
    running = update(_T).where(same, _T.c.state == JobState.RUNNING.value)
    connection.execute(running.values(once_more=True))


def _row(job: NewJob, now: datetime) -> dict[str, Any]:
    return {
        "kind": job.kind,
        "key": job.key,
        "role": job.role.value,
        "payload": dict(job.payload),
        "priority": -job.priority,
        "state": JobState.QUEUED.value,
        "attempts": 0,
        "max_attempts": job.max_attempts,
        "lease": "",
        "owner": "",
        "not_before": job.not_before,
        "created_at": now,
        "error": "",
        "once_more": False,
    }


def _held(job: Job) -> tuple[Any, ...]:
    """The worker still holds the job: nobody else has claimed it since."""
    return _T.c.id == job.id, IS_RUNNING, _T.c.lease == job.lease


def _job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        key=row.key,
        role=Role(row.role),
        payload=row.payload,
        priority=-row.priority,
        state=JobState(row.state),
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        lease=row.lease,
        owner=row.owner,
        leased_until=row.leased_until,
        not_before=row.not_before,
        created_at=row.created_at,
        finished_at=row.finished_at,
        error=row.error,
    )
