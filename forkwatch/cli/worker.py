"""`forkwatch worker`."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from typing import Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import RequireIsolationOption
from forkwatch.jobs.interface import Job, JobState, Role


@handled
def worker(
    role: Annotated[
        list[Role] | None, typer.Option("--role", help="What to do (default: everything). Repeatable.")
    ] = None,
    drain: Annotated[bool, typer.Option("--drain", help="End when there is nothing to do.")] = False,
    max_jobs: Annotated[
        int | None, typer.Option("--max-jobs", min=1, help="End after so many (default: by the settings).")
    ] = None,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
    require_isolation: RequireIsolationOption = False,
) -> None:
    """Do jobs from the database, here or on another box of the same PostgreSQL.

    SIGTERM lets the present job finish, for as long as [daemon] grace_seconds says, then gives it back.
    """
    import structlog

    from forkwatch import logs
    from forkwatch.cli.session import isolating_settings, session
    from forkwatch.daemon.talk import LogTalk
    from forkwatch.jobs.worker import Watch, Worker, WorkerOptions
    from forkwatch.pipeline.tasks import handlers
    from forkwatch.store.jobs import JobQueue

    logs.configure()
    log = structlog.get_logger("forkwatch.worker")
    roles = tuple(role or Role)
    settings = isolating_settings(required=require_isolation, evaluates=Role.EVAL in roles)
    options = settings.daemon
    with session(settings, talk=LogTalk()) as context:
        plan = WorkerOptions(
            roles=roles,
            owner=f"{platform.node()}:{os.getpid()}",
            timeouts={each: getattr(options, f"{each}_timeout_seconds") for each in Role},
            grace_seconds=options.grace_seconds,
            drain=drain,
            max_jobs=max_jobs or options.jobs_per_process,
        )
        queue = JobQueue(context.store.engine, context.now)
        working = Worker(queue, handlers(context), plan, Watch(queue, plan), _teller(log))
        signal.signal(signal.SIGTERM, lambda *_: working.stop())
        if parent is not None:
            _end_with(parent)
        log.info("working", roles=[each.value for each in roles])
        log.info("ended", jobs=working.run())


def _teller(log: object) -> Callable[[Job, JobState | None, float], None]:
    def told(job: Job, state: JobState | None, seconds: float) -> None:
        log.info(  # type: ignore[attr-defined]  # structlog's loggers have no common type
            "job",
            job=job.id,
            kind=job.kind,
            repo=job.payload.get("repo") or job.payload.get("release"),
            state="lease lost" if state is None else state.value,
            attempt=job.attempts,
            seconds=round(seconds, 3),
        )

    return told


def _end_with(parent: int) -> None:
    """A worker must not outlive its daemon: another one would start workers of its own."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(0)

    threading.Thread(target=look, name="parent", daemon=True).start()
