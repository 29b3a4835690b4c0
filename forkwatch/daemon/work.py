"""A worker with everything it needs, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from crawler.interface import Hub, NoSpaceError
from forkwatch.errors import SettingsError
from forkwatch.jobs.interface import Job, JobState, Role
from forkwatch.jobs.owner import owner
from forkwatch.pipeline.blobs import blob_path
from forkwatch.pipeline.context import Context
from forkwatch.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What one worker process does before it ends."""

    roles: tuple[Role, ...]
    max_jobs: int
    drain: bool = False


def work(settings: Settings, shift: Shift, started: Callable[[Callable[[], None]], None]) -> int:
    """Do jobs until told to stop; how many.

    Args:
        settings: As the daemon's.
        shift: What to do.
        started: Called once with what stops the worker after its present job.
    """
    from forkwatch.cli.session import session
    from forkwatch.clock import wall_clock
    from forkwatch.daemon.apart import do_apart
    from forkwatch.daemon.talk import LogTalk
    from forkwatch.jobs.worker import Watch, Worker, WorkerOptions
    from forkwatch.pipeline.tasks import handlers
    from forkwatch.store.jobs import JobQueue

    options, log = settings.daemon, structlog.get_logger("forkwatch.worker")
    with session(settings, talk=LogTalk()) as context:
        plan = WorkerOptions(
            roles=shift.roles,
            owner=owner(),
            timeouts={each: getattr(options, f"{each}_timeout_seconds") for each in Role},
            grace_seconds=options.grace_seconds,
            drain=shift.drain,
            max_jobs=shift.max_jobs,
        )
        _require_shared(context, shift.roles)
        queue = JobQueue(context.store.engine, wall_clock)
        tasks = handlers(context) | {"learn": partial(do_apart, settings)}
        worker = Worker(queue, tasks, plan, Watch(queue, plan), _tell, Room(context.hub))
        started(worker.stop)
        log.info("working", roles=[each.value for each in shift.roles])
        done = worker.run()
    log.info("ended", jobs=done)
    return done


def _require_shared(context: Context, roles: tuple[Role, ...]) -> None:
    """See that this is the state folder that goes with the database, by the prompt suites of its releases.

    Transcripts, suites and classifiers are files: a box with a folder of its own would fail job after job.

    Raises:
        SettingsError: it is not.
    """
    if set(roles) == {Role.CRAWL}:
        return
    for release in context.store.releases():
        if not blob_path(context.state, release.suite).is_file():
            raise SettingsError(
                f"{context.state.root} is not the state folder of this database: it lacks the prompts of "
                f"{release.repo}",
                tip="Boxes that work on one database share one state folder; see docs/operations.md.",
            )


class Room:
    """Whether the disk has room for work; says once that it has not, and once that it has again."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._was: str | None = None

    def __call__(self) -> str | None:
        """Why there is none; None: there is."""
        log, was = structlog.get_logger("forkwatch.worker"), self._was
        try:
            self._hub.require_room()
            self._was = None
        except NoSpaceError as error:
            self._was = str(error)
        if self._was and not was:
            log.warning("no work without room", reason=self._was)
        if was and not self._was:
            log.info("room again")
        return self._was


def _tell(job: Job, state: JobState | None, seconds: float) -> None:
    structlog.get_logger("forkwatch.worker").info(
        "job",
        job=job.id,
        kind=job.kind,
        repo=job.payload.get("repo") or job.payload.get("release"),
        state="lease lost" if state is None else state.value,
        attempt=job.attempts,
        seconds=round(seconds, 3),
    )
