"""`forkwatch db`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import MAX_DAYS, span
from forkwatch.cli.output import say
from forkwatch.errors import SettingsError

app = typer.Typer(help="The database.", no_args_is_help=True)


@app.command("upgrade")
@handled
def upgrade() -> None:
    """Bring the tables up to date. Every command does so by itself; a deployment may want to say when."""
    from forkwatch.cli.session import open_database, open_state
    from forkwatch.settings import load_settings

    engine = open_database(load_settings(), open_state())
    engine.dispose()
    say(f"the {engine.dialect.name} database is up to date")


@app.command("backup")
@handled
def backup(
    out: Annotated[Path, typer.Argument(help="A file that does not exist yet.")],
) -> None:
    """Copy the SQLite database while others use it; readable by its owner alone.

    Blobs and originals lie beside it: copy the state folder too. For PostgreSQL use pg_dump.
    """
    from forkwatch.cli.writing import writing_to
    from forkwatch.settings import load_settings
    from forkwatch.state import find_state_dir
    from forkwatch.store.backup import copy_database

    if load_settings().database.url is not None:
        raise SettingsError("the database is PostgreSQL", tip="Use pg_dump.")
    source = find_state_dir().database
    if not source.is_file():
        raise SettingsError(f"there is no database at {source}", tip="Set FORKWATCH_STATE_DIR.")
    if out.exists():
        raise SettingsError(f"{out} exists", tip="Name a new file: a backup replaces nothing.")
    with writing_to(out.parent):
        copy_database(source, out)
    say(f"wrote {out}")


@app.command("prune")
@handled
def prune(
    days: Annotated[
        float, typer.Option("--days", min=1, max=MAX_DAYS, help="Keep jobs and sent alerts of so many days.")
    ] = 90.0,
) -> None:
    """Forget finished jobs and sent alerts that are old, and journals of comparisons that were given up.

    Verdicts, results and histories are never forgotten.
    """
    import shutil

    from forkwatch.cli.session import open_database, open_state
    from forkwatch.clock import wall_clock
    from forkwatch.settings import load_settings
    from forkwatch.store.jobs import JobQueue
    from forkwatch.store.outbox import Outbox

    state, before = open_state(), wall_clock() - span(days)
    engine = open_database(load_settings(), state)
    jobs, alerts = JobQueue(engine, wall_clock).purge(before), Outbox(engine, wall_clock).purge(before)
    engine.dispose()
    old = [path for path in state.journals.glob("*") if path.stat().st_mtime < before.timestamp()]
    for path in old:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    say(f"forgot {jobs} jobs, {alerts} alerts and {len(old)} journals")
