"""Opening the database, and bringing its tables up to date."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Engine, Text, create_engine, event, func, inspect
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from forkwatch.errors import Exit, ForkwatchError

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

MIGRATIONS = Path(__file__).parent / "migrations"

_WRITES = "forkwatch_writes"
BUSY_SECONDS, LONGEST_PAUSE = 30, 0.001
"""How long to wait for another writer on SQLite, and between two looks."""
_BUSY = "busy_timeout"
"""How long SQLite itself waits, as it stands for a connection: kept, so that it is set only to change."""


class NewerDatabaseError(ForkwatchError):
    """There is no way back."""

    code = Exit.USAGE
    tip = "Install that version again, or put a backup from before back."


def open_engine(url: str) -> Engine:
    """An engine on an up-to-date database; SQLite in WAL mode with foreign keys on.

    Raises:
        NewerDatabaseError: a later version of this program has used it.
    """
    engine = create_engine(url)
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin)
    with engine.connect() as connection:
        if _is_current(connection):
            return engine
        connection.rollback()
        if sqlite:
            # A table that is made anew has no rows for a moment. Within a transaction this does nothing.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            # The driver begins none before DDL: a kill would leave half of a migration.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        upgrade(connection)
        if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
            raise AssertionError(f"the migration broke a reference: {tuple(broken)}")
        connection.commit()
        if sqlite:
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
    return engine


def _is_current(connection: Connection) -> bool:
    """Whether the newest migration was run. Loading the migrations to find out costs more than a command."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    newest = max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    rows = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    if any(row > newest for row in rows):
        raise NewerDatabaseError(f"the database is of a later version: {max(rows)}, not {newest}")
    return list(rows) == [newest]


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to `revision` on a connection; the caller commits."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def writing(engine: Engine) -> Engine:
    """The same engine, for transactions that read what they then write.

    SQLite has one writer at a time; the driver would begin only at the first write, after the reads.
    """
    return engine.execution_options(**{_WRITES: True})


def one_statement(engine: Engine) -> Engine:
    """The same engine, for transactions of a single statement.

    PostgreSQL gets nothing but the statement: `BEGIN` and `COMMIT` would each be one more way there and back.
    """
    if engine.dialect.name == "sqlite":
        return writing(engine)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def insert_into(place: Session | Connection, table: Any) -> sqlite.Insert | postgresql.Insert:
    """An `INSERT` that can say what to do on a conflict; the two databases spell it alike."""
    bind = place.get_bind() if isinstance(place, Session) else place
    if bind.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        return insert_sqlite(table)
    from sqlalchemy.dialects.postgresql import insert

    return insert(table)


def utc_text(place: Session | Connection, column: Any) -> ColumnElement[str]:
    """A time to the second as `isoformat` writes it. A list of 10,000 `datetime`s costs ten times as much.

    Texts of it are in the order of the times.
    """
    bind = place.get_bind() if isinstance(place, Session) else place
    if bind.dialect.name == "sqlite":
        day, time_of_day = func.substr(column, 1, 10, type_=Text), func.substr(column, 12, 8, type_=Text)
        return day + "T" + time_of_day + "+00:00"
    return func.to_char(func.timezone("UTC", column), 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"', type_=Text)


def _begin(connection: Connection) -> None:
    """Take the write lock, where that is asked for, and look for it often where another process has it.

    SQLite's own waiting looks again after 100 ms at last: beside processes that write all the time, one of
    them would wait for seconds. The driver's connection is asked, since each look is a few microseconds.
    """
    writes = bool(connection.get_execution_options().get(_WRITES))
    driver, pause, until = connection.connection.driver_connection, 0.0002, time.monotonic() + BUSY_SECONDS
    if driver is None:
        raise AssertionError("a connection that begins is open")
    _wait_busy(driver, connection.info, 0 if writes else 1000 * BUSY_SECONDS)
    while writes and time.monotonic() < until:
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                break
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311
            pause = min(1.5 * pause, LONGEST_PAUSE)
        else:
            return
    if writes:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # once more, for an error of SQLAlchemy's


def _wait_busy(driver: Any, info: dict[Any, Any], milliseconds: float) -> None:
    if info.get(_BUSY) != milliseconds:
        driver.execute(f"PRAGMA busy_timeout={milliseconds:.0f}")
        info[_BUSY] = milliseconds


def _configure_sqlite(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    _wait_busy(connection, record.info, 1000 * BUSY_SECONDS)
