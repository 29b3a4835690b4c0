"""Forks whose job was set aside: the report says so, and why."""

from __future__ import annotations

from evals.interface import NoMemoryError
from forkwatch.jobs.interface import Job, JobState, Role
from forkwatch.pipeline.run import PER_REPO_ERRORS
from forkwatch.pipeline.tasks import publish_job, scan_key
from forkwatch.settings import Settings
from forkwatch.store.jobs import JobQueue
from forkwatch.store.schedules import Schedules
from forkwatch.store.store import Store
from reports.numbers import plural

MOST = 1000
"""Jobs looked at."""

_WORDED = frozenset(kind.__name__ for kind in (*PER_REPO_ERRORS, NoMemoryError))
"""Errors that say what is wrong in words for everybody. Others may name this machine's files and servers."""
UNREACHABLE = frozenset({"HubUnavailableError", "TransientError", "RangeIgnoredError"})
"""Errors by which the Hub, or the way there, refuses: nobody's fault here."""


def retry_unreachable(schedules: Schedules, queue: JobQueue) -> int:
    """Try again what was set aside because the Hub did not answer, once a crawl succeeded; how many jobs."""
    crawled = schedules.last_success("crawl")
    return 0 if crawled is None else queue.retry_failed(UNREACHABLE, crawled)


def show_quarantined(settings: Settings, store: Store, queue: JobQueue, shown: set[int]) -> int:
    """Note the reason with each fork whose job is set aside, once, and ask for the site; how many are new.

    Args:
        settings: As the workers have them.
        store: Where forks are.
        queue: Where jobs are.
        shown: Ids of jobs that were noted; kept up to date.
    """
    aside = {job.id: job for job in queue.jobs(state=JobState.QUARANTINED, limit=MOST) if job.kind == "scan"}
    shown.intersection_update(aside)
    new = [job for number, job in aside.items() if number not in shown]
    noted = sum(_note(settings, store, queue, job) for job in new)
    if noted:
        queue.enqueue([publish_job(store.now)])
    shown.update(aside)
    return noted


def _note(settings: Settings, store: Store, queue: JobQueue, job: Job) -> bool:
    """Whether the report has to say something else now.

    `shown` is forgotten with each daemon: what was said before is no news, and a job about an earlier commit,
    or of an earlier version, says nothing about what was examined since.
    """
    row = next((row for row in store.releases() if row.repo == job.payload.get("release")), None)
    known = None if row is None else store.candidate(row.id or 0, str(job.payload.get("repo")))
    if row is None or known is None or known.gone_at is not None:
        return False
    present = scan_key(settings, row, known)
    if job.key.removesuffix(f":{Role.EVAL}") != present and queue.is_done(present):
        return False
    reason = f"set aside after {plural(job.attempts, 'attempt')}: {_in_public(job.error)}"
    if known.gap == reason:
        return False
    store.set_gap(row.id or 0, known.repo_id, reason)
    return True


def _in_public(error: str) -> str:
    kind, _, text = error.partition(": ")
    if not kind.isidentifier():  # a worker's own words
        return error
    return text if kind in _WORDED else kind
