"""What the daemon's jobs do: a whole run, in pieces that are done once each and in any order.

A job's key names everything that its outcome depends on (release, repository, commit, methods), so asking
for it again after a crash, or by two daemons, asks for nothing new. Results are kept by stage
(`pipeline/ledger.py`): a piece that is killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from crawler.interface import Access, Channel, RepoNotFoundError, parse_repo_id
from evals.interface import EvaluationFailedError
from forkwatch.alerts import upstream_message
from forkwatch.clock import wall_clock
from forkwatch.errors import ForkwatchError, NothingToExamineError
from forkwatch.jobs.interface import Job, NewJob, Role
from forkwatch.jobs.worker import Hopeless
from forkwatch.pipeline.classifier import update_classifier
from forkwatch.pipeline.context import Context, StageDeferredError
from forkwatch.pipeline.crawl import crawl
from forkwatch.pipeline.effort import observe
from forkwatch.pipeline.funnel import methods
from forkwatch.pipeline.originals import Original, find_release, open_original
from forkwatch.pipeline.publish import publish
from forkwatch.pipeline.run import PER_REPO_ERRORS, require_rows, scan, set_gap
from forkwatch.pipeline.upstream import watch
from forkwatch.settings import Settings, gib
from forkwatch.store.models import Release
from forkwatch.store.outbox import Outbox
from forkwatch.store.schedules import Schedules
from forkwatch.store.values import Known

FORWARD_PASSES = frozenset({"evaluate", "direction"})
"""Stages that a reader leaves to an evaluator."""
TOGETHER = timedelta(minutes=5)
"""What comes close together is learned from, and published, together."""
_SUSPICIOUS = frozenset({Channel.TAG, Channel.NAME})


class SendingError(ForkwatchError):
    """A digest did not reach everybody."""


Task = Callable[[Context, Job], Sequence[NewJob]]


def crawl_release(context: Context, job: Job) -> tuple[NewJob, ...]:
    """Look at a release upstream and for its forks; next: each fork whose head has not been judged.

    Raises:
        CrawlerError: the Hub cannot be asked.
        NothingToExamineError: the Hub showed nothing at all.
    """
    row = find_release(context, str(job.payload["release"]))
    seen = watch(context, row)
    alerts = context.settings.alerts
    if alerts.wanted and alerts.upstream:  # put again at every look until it is decided: the key tells
        outbox = Outbox(context.store.engine, wall_clock)
        outbox.put([upstream_message(row.repo, event) for event in seen.open])
    try:
        done = crawl(context, row.id or 0, parse_repo_id(row.repo))
        require_rows(done)
        candidates = done.candidates
    except RepoNotFoundError:  # the release is gone; its forks are what matters then
        candidates = context.store.candidates(row.id or 0)
    now = wall_clock()
    Schedules(context.store.engine, wall_clock).succeeded("crawl")
    return tuple(scan_job(context, row, known, now) for known in candidates if known.gone_at is None)


def scan_job(context: Context, row: Release, known: Known, now: datetime) -> NewJob:
    """The job that judges one fork as it is now."""
    return NewJob(
        kind="scan",
        key=scan_key(context.settings, row, known),
        role=Role.READ,
        payload={"release": row.repo, "repo": known.repo},
        priority=priority(known, now),
    )


def scan_key(settings: Settings, row: Release, known: Known) -> str:
    """What a verdict about a fork depends on. A repository that is opened is another one without a commit.

    The budget is of that where it was too small: a fork is asked again when there is another.
    """
    seen = known.summary
    state = seen.commit or f"modified {seen.last_modified}"
    if seen.access is not Access.OPEN:
        state = f"{state} {seen.access}"
    budget = gib(settings.hub.repo_budget_gb)
    if known.over_budget not in (None, budget):
        state = f"{state} of {budget} bytes at most"
    text = json.dumps((row.root_digest, known.identity, state, methods(settings)))
    return f"scan:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def priority(known: Known, now: datetime) -> float:
    """Reach × suspicion, and a little for each day that it has waited, so that nothing waits for ever."""
    reach = math.log10(10 + max(0, known.summary.downloads))
    suspicion = 3.0 if _SUSPICIOUS.intersection(known.channels) else 1.0
    waited = max(0, (now - known.first_seen) // timedelta(days=1))  # whole days: a row is touched once a day
    return reach * suspicion + min(waited, 30) / 10


def scan_fork(context: Context, job: Job) -> tuple[NewJob, ...]:
    """All stages for one fork; next: an evaluator's turn if one is needed, else the site.

    What is wrong with the repository is its gap and shown, and the job is done.

    Raises:
        CrawlerError: the Hub cannot be reached; the job is tried again, and set aside in the end.
        EvaluationFailedError: likewise.
    """
    original = open_original(context, find_release(context, str(job.payload["release"])))
    repo = str(job.payload["repo"])
    known = context.store.candidate(original.release_id, repo)
    here = replace(context, deferred=FORWARD_PASSES) if job.role is Role.READ else context
    try:
        scan(here, original, repo, known=known)
    except StageDeferredError:
        again = replace_role(job, Role.EVAL)
        return (again,)
    except EvaluationFailedError:  # of the machine perhaps, and not of the repository
        raise
    except PER_REPO_ERRORS as error:
        if known is not None:
            set_gap(context, original, known, error)
    now = wall_clock()
    learn = (learn_job(original, now),) if job.role is Role.EVAL else ()
    return (*learn, publish_job(now))


def replace_role(job: Job | NewJob, role: Role) -> NewJob:
    """The same work for workers of another role."""
    return NewJob(
        kind=job.kind, key=f"{job.key}:{role}", role=role, payload=job.payload, priority=job.priority
    )


def learn_job(original: Original, now: datetime) -> NewJob:
    """What all measured forks of a release teach; again whenever one more is measured, some minutes later."""
    return NewJob(
        kind="learn",
        key=f"learn:{original.root_digest}",
        role=Role.READ,
        payload={"release": original.repo},
        not_before=now + TOGETHER,
        again=True,
    )


def learn(context: Context, job: Job) -> tuple[NewJob, ...]:
    """Train the release's classifier of outputs, and note what its forks took; both keep what is new only."""
    original = open_original(context, find_release(context, str(job.payload["release"])))
    update_classifier(context, original)
    observe(context, original)
    return (publish_job(wall_clock()),)


def publish_job(now: datetime) -> NewJob:
    """The site, again whenever something has changed; changes of some minutes are published together."""
    return NewJob(
        kind="publish",
        key="publish",
        role=Role.PUBLISH,
        not_before=now + TOGETHER,
        max_attempts=10,
        again=True,
    )


def publish_site(context: Context, _job: Job) -> tuple[NewJob, ...]:
    """Build the site from what is stored; without a verdict there is nothing to build."""
    try:
        publish(context)
    except NothingToExamineError as error:
        raise Hopeless(str(error)) from error
    Schedules(context.store.engine, wall_clock).succeeded("publish")
    return ()


def write_digest(context: Context, job: Job) -> tuple[NewJob, ...]:
    """The digest of one week, as files, and to those of [mail] who have not got it.

    Raises:
        SendingError: a recipient could not be reached, or another process holds the claim on the message and
            may have died with it; the job is tried again, and nobody gets it twice.
    """
    from forkwatch.pipeline.mailing import digest_of, send
    from reports.mail import write_digest as write

    digest = digest_of(context, str(job.payload["week"]))
    write(digest, context.state.digests)
    deliveries = send(context, digest) if context.settings.mail.host is not None else ()
    if left := [delivery for delivery in deliveries if delivery.state in ("failed", "being sent")]:
        raise SendingError(f"{left[0].recipient}: {left[0].note}")
    Schedules(context.store.engine, wall_clock).succeeded("digest")
    return ()


TASKS: Mapping[str, Task] = {
    "crawl": crawl_release,
    "scan": scan_fork,
    "learn": learn,
    "publish": publish_site,
    "digest": write_digest,
}


def handlers(context: Context) -> dict[str, Callable[[Job], Sequence[NewJob]]]:
    """The tasks for a worker."""
    return {kind: partial(task, context) for kind, task in TASKS.items()}
