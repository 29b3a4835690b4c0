"""Forks whose job was set aside: the report says so, and why."""

from __future__ import annotations

from forkwatch.jobs.interface import Job, JobState
from forkwatch.pipeline.tasks import publish_job
from forkwatch.store.jobs import JobQueue
from forkwatch.store.store import Store

MOST = 1000
"""Jobs looked at."""


def show_quarantined(store: Store, queue: JobQueue, shown: set[int]) -> int:
    """Note the reason with each fork whose job is set aside, once, and ask for the site; how many are new.

    Args:
        store: Where forks are.
        queue: Where jobs are.
        shown: Ids of jobs that were noted; kept up to date.
    """
    aside = {job.id: job for job in queue.jobs(state=JobState.QUARANTINED, limit=MOST) if job.kind == "scan"}
    shown.intersection_update(aside)
    new = [job for number, job in aside.items() if number not in shown]
    for job in new:
        _note(store, job)
    if new:
        queue.enqueue([publish_job(store.now)])
    shown.update(aside)
    return len(new)


def _note(store: Store, job: Job) -> None:
    wanted = str(job.payload.get("release"))
    ids = [release.id for release in store.releases() if release.repo == wanted]
    for release_id in ids:
        known = store.candidate(release_id or 0, str(job.payload.get("repo")))
        if known is not None and known.gone_at is None:
            reason = f"set aside after {job.attempts} attempts: {job.error}"
            store.set_gap(release_id or 0, known.repo_id, reason)
