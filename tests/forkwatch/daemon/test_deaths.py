"""A worker that dies of a fork, whatever kills it, sets the fork aside in sight of the report's reader."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from forkwatch.daemon.housekeeping import Reaper
from forkwatch.jobs.interface import JobState, NewJob, Role
from forkwatch.pipeline.quarantine import show_quarantined
from forkwatch.store.jobs import JobQueue
from forkwatch.store.memory import StoreMemory
from forkwatch.store.store import Store
from tests.forkwatch.past import A, batch, summary
from tests.forkwatch.samples import RELEASE

DIES = """
import os, sys
from datetime import UTC, datetime
from forkwatch.jobs.interface import Role
from forkwatch.jobs.owner import owner
from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue
job = JobQueue(open_engine(sys.argv[1]), lambda: datetime.now(UTC)).claim((Role.EVAL,), owner())
assert job is not None
os.kill(os.getpid(), int(sys.argv[2]))
"""


def test_a_fork_that_kills_its_evaluators_is_set_aside_and_shown(
    store: Store, release: int, tmp_path: Path
) -> None:
    queue = JobQueue(store.engine, lambda: datetime.now(UTC))
    StoreMemory(store, release).keep(batch(summary()))
    scan = NewJob(
        kind="scan",
        key="scan:1:eval",
        role=Role.EVAL,
        payload={"release": RELEASE, "repo": A},
        max_attempts=2,
    )
    queue.enqueue([scan])
    shown: set[int] = set()
    for number in (signal.SIGSEGV, signal.SIGKILL):
        assert show_quarantined(store, queue, shown) == 0
        url = f"sqlite:///{tmp_path / 'test.db'}"
        died = subprocess.run([sys.executable, "-c", DIES, url, str(int(number))], check=False)
        assert died.returncode == -number
        assert Reaper(queue).reap() == 1
    assert show_quarantined(store, queue, shown) == 1
    assert show_quarantined(store, queue, shown) == 0
    known = store.candidate(release, A)
    assert known is not None
    assert known.gap == "set aside after 2 attempts: the worker died or was killed"
    states = {job.kind: job.state for job in queue.jobs()}
    assert states == {"scan": JobState.QUARANTINED, "publish": JobState.QUEUED}
