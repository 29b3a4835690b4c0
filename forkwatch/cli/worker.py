"""`forkwatch worker`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import RequireIsolationOption
from forkwatch.jobs.interface import Role


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
    handed: Annotated[bool, typer.Option("--handed", hidden=True)] = False,
    require_isolation: RequireIsolationOption = False,
) -> None:
    """Do jobs from the database, here or on another box of the same PostgreSQL.

    SIGTERM lets the present job finish, for as long as daemon.grace_seconds says, then gives it back.
    """
    from forkwatch import logs
    from forkwatch.cli.session import isolating_settings
    from forkwatch.daemon.parent import end_with
    from forkwatch.daemon.work import Shift, work
    from forkwatch.settings import take_over

    logs.configure()
    roles = tuple(role or Role)
    given = take_over(sys.stdin.buffer.read()) if handed else None
    settings = isolating_settings(given, required=require_isolation, evaluates=Role.EVAL in roles)

    def started(stop: Callable[[], None]) -> None:
        signal.signal(signal.SIGTERM, lambda *_: stop())
        if parent is not None:
            end_with(parent)  # another daemon would start workers of its own

    work(
        settings,
        Shift(roles=roles, max_jobs=max_jobs or settings.daemon.jobs_per_process, drain=drain),
        started,
    )
