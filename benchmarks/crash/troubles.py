"""What happens to a machine while a daemon works: one kind of trouble a round, again and again.

Each is the real thing: a full file system, a lock that another process holds, a server that is stopped, a
clock that is set (`clock.c`), a hub that answers 503. Only the hour without the hub is shortened: the waits
of jobs are skipped, and count.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from benchmarks.crash.scene import Scene
from forkwatch.clock import wall_clock
from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.demo.hub.faults import Route
from forkwatch.jobs.interface import NewJob, Role
from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue
from tests.forkwatch.daemon.disk import Disk

DAY, HOUR = 86_400, 3_600


@dataclass
class Trouble:
    """Comes and goes `left` times; here it does nothing."""

    scene: Scene
    rng: random.Random
    seconds: tuple[float, float] = (0.0, 0.0)
    """How long it lasts."""
    left: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    reaps: bool = True
    """Whether our own clock may be asked who is dead."""
    retries: bool = True
    """Whether an operator tries crawls and scans again that were set aside."""
    _until: float | None = None
    _next: float = 0.0

    def look(self) -> bool:
        """Let it begin or end when it is time; whether it lasts."""
        now = time.monotonic()
        if self._until is None and self.left and now > self._next:
            self.left -= 1
            self.begin()
            self._until = time.monotonic() + self.rng.uniform(*self.seconds)
        elif self._until is not None and self.is_over(now > self._until):
            self.end()
            self._until, self._next = None, now + self.rng.uniform(0.5, 4.0)
        return self._until is not None

    def is_over(self, long_enough: bool) -> bool:  # noqa: FBT001
        """Whether it ends."""
        return long_enough

    def begin(self) -> None:
        """It begins."""

    def end(self) -> None:
        """It ends."""


class FullDisk(Trouble):
    """Nothing can be written to the state folder."""

    def begin(self) -> None:
        """Fill it."""
        self.happened["disk full"] += 1
        Disk(self.scene.folder).fill()

    def end(self) -> None:
        """Make room."""
        Disk(self.scene.folder).empty()


class Locked(Trouble):
    """Another process writes to SQLite, and does not end."""

    _lock: Any = None

    def begin(self) -> None:
        """Take the lock."""
        self.happened["locked"] += 1
        self._lock = sqlite3.connect(self.scene.folder / "forkwatch.db", timeout=60, isolation_level=None)
        self._lock.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        """Give it back."""
        self._lock.close()


class Restarted(Trouble):
    """PostgreSQL is stopped, and started again."""

    server: Any = None

    def begin(self) -> None:
        """Stop it."""
        self.happened["restarted"] += 1
        self.server.stop()

    def end(self) -> None:
        """Start it."""
        self.server.start()


class ClockSet(Trouble):
    """The time is set by a day, forwards or backwards, and set right again."""

    reaps = False

    def begin(self) -> None:
        """Set it."""
        by = self.rng.choice((DAY, -DAY))
        self.happened["a day ahead" if by > 0 else "a day back"] += 1
        self.scene.moved.write_text(str(by))

    def end(self) -> None:
        """Set it right."""
        self.scene.moved.write_text("0")


class HubAway(Trouble):
    """For an hour of waiting, no route answers."""

    retries = False
    hub: LoopbackHub | None = None
    waited: float = 0.0

    def begin(self) -> None:
        """It goes."""
        assert self.hub is not None
        self.happened["hub away"] += 1
        self.waited = 0.0
        for route in get_args(Route):
            self.hub.inject(Fault(route, "503", times=-1))

    def is_over(self, long_enough: bool) -> bool:  # noqa: ARG002, FBT001
        """After an hour, or where all is set aside and nothing waits any more."""
        with self.scene.database() as database:
            rows = database.exec_driver_sql("SELECT state, not_before FROM job").all()
            if not rows or any(
                state == "running" or (state == "queued" and at is None) for state, at in rows
            ):
                return False
            waits = [str(at) for state, at in rows if state == "queued"]
            if not waits:
                return True
            ends = datetime.fromisoformat(min(waits)).replace(tzinfo=UTC)
            self.waited += max(0.0, (ends - datetime.now(UTC)).total_seconds())
            next_one = "UPDATE job SET not_before = NULL WHERE state = 'queued' AND not_before = ?"
            database.exec_driver_sql(next_one, (min(waits),))
        return self.waited >= HOUR

    def end(self) -> None:
        """It is back, and the schedule asks for a crawl."""
        assert self.hub is not None
        self.happened["minutes that jobs waited meanwhile"] += round(self.waited / 60)
        with self.scene.database() as database:
            aside = "SELECT count(*) FROM job WHERE state = 'quarantined'"
            self.happened["jobs set aside"] += database.exec_driver_sql(aside).scalar_one()
        self.hub.clear_faults()
        ask_crawl(self.scene, f"after-{self.left}")


def ask_crawl(scene: Scene, name: str) -> None:
    """As the schedule does."""
    with scene.database() as database:
        first = "SELECT payload FROM job WHERE kind = 'crawl' ORDER BY id LIMIT 1"
        payload = json.loads(database.exec_driver_sql(first).scalar_one())
    engine = open_engine(scene.url)
    crawl = NewJob(kind="crawl", key=f"crawl:{name}:{scene.clock}", role=Role.CRAWL, payload=payload)
    JobQueue(engine, wall_clock).enqueue([crawl])
    engine.dispose()


def shifting_clock(folder: Path) -> Path:
    """The library that sets the clock, built."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("setting the clock needs a C compiler")
    built = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built
