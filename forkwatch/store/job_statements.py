"""The statements of the queue that run for each job, built once: that is half of what a claim computes."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Select, Update, bindparam, case, func, or_, select, true, union_all, update

from forkwatch.jobs.interface import Job, JobState, Role
from forkwatch.store.job_rows import IS_QUEUED, IS_RUNNING, JobRow

_T = JobRow.__table__  # type: ignore[attr-defined]  # as in `jobs`


@cache
def claims(roles: frozenset[Role]) -> Update:
    """The statement that claims the best job of some roles: built once, it is half of what a claim computes.

    The best of each role is one step in the index; all roles in one condition would be sorted at each claim.
    """
    now = bindparam("now", type_=_T.c.not_before.type)
    heads = []
    for role in sorted(roles):
        head = (
            select(_T.c.id, _T.c.priority)
            .where(IS_QUEUED, _T.c.role == role.value, or_(_T.c.not_before.is_(None), _T.c.not_before <= now))
            .order_by(_T.c.priority, _T.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .subquery()
        )
        heads.append(select(head.c.id, head.c.priority))
    found = union_all(*heads).subquery()
    best = select(found.c.id).order_by(found.c.priority, found.c.id).limit(1)
    return (
        update(_T)
        .where(_T.c.id == best.scalar_subquery())
        .values(
            state=JobState.RUNNING.value,
            attempts=_T.c.attempts + 1,
            lease=bindparam("new_lease"),
            owner=bindparam("new_owner"),
            leased_until=bindparam("until", type_=_T.c.leased_until.type),
        )
        .returning(_T)
    )


FINISHED = (
    update(_T)
    .where(_T.c.id == bindparam("job"), IS_RUNNING, _T.c.lease == bindparam("held"))
    .values(
        state=case((_T.c.once_more, JobState.QUEUED.value), else_=JobState.DONE.value),
        finished_at=case((_T.c.once_more, None), else_=bindparam("now", type_=_T.c.finished_at.type)),
        attempts=case((_T.c.once_more, 0), else_=_T.c.attempts),
        once_more=False,
        lease="",
        leased_until=None,
        error="",
    )
)
"""Done; queued again where it was asked for meanwhile."""


@cache
def finishes_and_claims(roles: frozenset[Role]) -> Select[Any]:
    """Both as one statement, which SQLite does not have: one way to the server and back. Always one row."""
    finished = FINISHED.returning(_T.c.id).cte("finished")
    claimed = claims(roles).cte("claimed")
    count = select(func.count().label("finished")).select_from(finished).subquery()
    return select(count.c.finished, claimed).select_from(count.outerjoin(claimed, true()))


def claim_values(now: datetime, owner: str, lease: timedelta) -> dict[str, Any]:
    """Parameters of a claim, under a new lease."""
    return {"now": now, "new_owner": owner, "new_lease": secrets.token_hex(16), "until": now + lease}


def end_values(job: Job, now: datetime) -> dict[str, Any]:
    """Parameters of a job's end."""
    return {"job": job.id, "held": job.lease, "now": now}
