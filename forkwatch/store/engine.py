"""Opening the database, and bringing its tables up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

MIGRATIONS = Path(__file__).parent / "migrations"

_WRITES = "forkwatch_writes"


def open_engine(url: str) -> Engine:
    """An engine on an up-to-date database; SQLite in WAL mode with foreign keys on."""
    engine = create_engine(url)
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_writing)
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
    newest = max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    rows = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    return list(rows) == [newest.partition("_")[0]]


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


def insert_into(place: Session | Connection, table: Any) -> sqlite.Insert | postgresql.Insert:
    """An `INSERT` that can say what to do on a conflict; the two databases spell it alike."""
    bind = place.get_bind() if isinstance(place, Session) else place
    if bind.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        return insert_sqlite(table)
    from sqlalchemy.dialects.postgresql import insert

    return insert(table)


def _begin_writing(connection: Connection) -> None:
    if connection.get_execution_options().get(_WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _configure_sqlite(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")
