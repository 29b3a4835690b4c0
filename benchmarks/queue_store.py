"""Stores of the size that the queue is measured at, written row by row, not crawled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Table, text
from sqlmodel import SQLModel

from crawler.interface import Commit, RepoId, RepoSummary
from forkwatch.jobs.interface import JobState, NewJob, Role
from forkwatch.store.job_rows import JobRow
from forkwatch.store.models import CandidateRow, Release, RepoRow
from forkwatch.store.values import dump_summary

_AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
_CHUNK = 5_000


def fill_store(engine: Engine, candidates: int, done: int) -> None:
    """One release with so many candidates, and so many jobs that are done."""
    release = {
        "id": 1, "repo": "lab/base-8b", "commit": "0" * 40, "root_digest": "sha256:" + "0" * 64,
        "status": "verified", "signer": "key", "trust": {}, "signature": "model.sig", "suite": "0" * 64,
        "manifest": {}, "added_at": _AT, "verified_at": _AT, "object_id": "0" * 24,
    }  # fmt: skip
    _insert(engine, Release, 1, lambda _: release)
    _insert(engine, RepoRow, candidates, _repo)
    _insert(engine, CandidateRow, candidates, _candidate)
    _insert(engine, JobRow, done, _done)


def settle(engine: Engine) -> None:
    """What a database does by itself after a while."""
    words = "PRAGMA wal_checkpoint(TRUNCATE)" if engine.dialect.name == "sqlite" else "VACUUM ANALYZE"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(words))


def _insert(engine: Engine, model: type[SQLModel], count: int, row: Callable[[int], dict[str, Any]]) -> None:
    table: Table = model.__table__  # type: ignore[attr-defined]  # SQLModel does not say that it has one
    for start in range(0, count, _CHUNK):
        rows = [row(number) for number in range(start, min(start + _CHUNK, count))]
        with engine.begin() as connection:
            connection.execute(table.insert(), rows)


def _name(number: int) -> str:
    return f"somebody-{number % 977}/base-8b-ft-{number}"


def _repo(number: int) -> dict[str, Any]:
    name = _name(number)
    summary = RepoSummary(
        repo=RepoId(name),
        object_id=f"{number:024x}",
        commit=Commit(f"{number:040x}"),
        created_at=_AT,
        last_modified=_AT,
        downloads=number % 5_000,
        likes=number % 50,
        tags=("transformers", "safetensors", "llama", "base_model:lab/base-8b", "region:us"),
    )
    return {
        "id": number + 1,
        "identity": f"{number:024x}",
        "name": name,
        "name_key": name.lower(),
        "summary": dump_summary(summary),
        "first_seen": _AT,
        "last_seen": _AT,
        "last_checked": _AT,
    }


def _candidate(number: int) -> dict[str, Any]:
    return {
        "release_id": 1,
        "repo_id": number + 1,
        "channels": ["declared"],
        "claims": [],
        "first_seen": _AT,
        "last_seen": _AT,
        "gap": None if number % 10 else "gated",
    }


def _done(number: int) -> dict[str, Any]:
    return {
        "kind": "scan",
        "key": f"scan:{number:032x}",
        "role": Role.READ.value,
        "payload": {"release": "lab/base-8b", "repo": _name(number)},
        "priority": -float(number % 20),
        "state": JobState.DONE.value,
        "attempts": 1,
        "max_attempts": 3,
        "owner": "a worker",
        "created_at": _AT,
        "finished_at": _AT + timedelta(seconds=number),
        "lease": "",
        "error": "",
        "once_more": False,
    }


def fill_rivals(address: str, app: Callable[[str], Any], jobs: Sequence[NewJob], done: int) -> None:
    """Procrastinate's tables with so many jobs that are done, and the jobs to do."""
    import psycopg
    from psycopg.types.json import Jsonb

    insert = (
        "INSERT INTO procrastinate_jobs (queue_name, task_name, priority, args, status)"
        " VALUES (%s, %s, %s, %s, %s)"
    )
    rival = app(address)
    with rival.open():
        rival.schema_manager.apply_schema()
    old = [("read", "scan", n % 20, Jsonb(_done(n)["payload"]), "succeeded") for n in range(done)]
    new = [
        (job.role.value, job.kind, round(1000 * job.priority), Jsonb(dict(job.payload)), "todo")
        for job in jobs
    ]
    with psycopg.connect(address, autocommit=True) as connection:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(insert, old + new)
        connection.execute("VACUUM ANALYZE")
