"""`forkwatch queue`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import MAX_DAYS, JsonOption, span
from forkwatch.cli.output import data_json, say, table
from forkwatch.errors import Exit, ForkwatchError
from forkwatch.jobs.interface import Job, JobState

if TYPE_CHECKING:
    from forkwatch.store.jobs import JobQueue

app = typer.Typer(help="The daemon's jobs.", no_args_is_help=True)


class UnknownJobError(ForkwatchError):
    """No job of that number."""

    code = Exit.USAGE
    tip = "`forkwatch queue ls --state quarantined` shows those that can be tried again."


@contextmanager
def _queue() -> Iterator[tuple[JobQueue, datetime]]:
    """The queue, without the Hub."""
    from forkwatch.cli.session import open_database, open_state
    from forkwatch.clock import wall_clock
    from forkwatch.settings import load_settings
    from forkwatch.store.jobs import JobQueue

    engine = open_database(load_settings(), open_state())
    try:
        yield JobQueue(engine, wall_clock), wall_clock()
    finally:
        engine.dispose()


@app.command("ls")
@handled
def ls(
    state: Annotated[JobState | None, typer.Option("--state", help="Only these.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows at most.")] = 50,
    json_output: JsonOption = False,
) -> None:
    """Jobs in the order of their turn, and how many there are."""
    with _queue() as (queue, _):
        jobs, depths = queue.jobs(state=state, limit=limit), queue.depths()
    if json_output:
        counts = [{"role": d.role, "state": d.state, "count": d.count} for d in depths]
        data_json({"schema": "forkwatch.queue/1", "counts": counts, "jobs": [_view(job) for job in jobs]})
        return
    columns = ("id", "kind", "state", "attempt", "about", "error")
    rows = [
        (str(job.id), job.kind, job.state, f"{job.attempts}/{job.max_attempts}", _about(job), job.error)
        for job in jobs
    ]
    table("Jobs", columns, rows)
    say(", ".join(f"{depth.count} {depth.role} {depth.state}" for depth in depths) or "no jobs")


@app.command("retry")
@handled
def retry(
    ids: Annotated[list[int] | None, typer.Argument(help="Of quarantined jobs (default: all).")] = None,
) -> None:
    """Give quarantined jobs another set of attempts. Exit code 2, and none gets any, where one is no such."""
    with _queue() as (queue, _):
        aside = [job.id for job in queue.jobs(state=JobState.QUARANTINED, limit=100_000)]
        if strange := sorted(set(ids or ()).difference(aside)):
            raise UnknownJobError(f"no quarantined job {strange[0]}")
        count = queue.retry(ids or aside)
    say(f"{count} jobs are queued again")


@app.command("purge")
@handled
def purge(
    days: Annotated[
        float, typer.Option("--days", min=0, max=MAX_DAYS, help="Keep those of the last days.")
    ] = 90.0,
) -> None:
    """Forget finished jobs; what they found stays, and so do quarantined ones."""
    with _queue() as (queue, now):
        count = queue.purge(now - span(days))
    say(f"{count} finished jobs forgotten")


def _about(job: Job) -> str:
    return str(job.payload.get("repo") or job.payload.get("release") or job.payload.get("week") or "")


def _view(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "kind": job.kind,
        "role": job.role,
        "state": job.state,
        "payload": dict(job.payload),
        "priority": job.priority,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "owner": job.owner,
        "error": job.error,
    }
