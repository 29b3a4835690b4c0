"""Jobs in a process of their own: what comes back, and that it does not outlive its worker."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from forkwatch.clock import wall_clock
from forkwatch.daemon.apart import do_apart
from forkwatch.jobs.interface import Job, NewJob, Role
from forkwatch.jobs.worker import ElsewhereError
from forkwatch.settings import Settings
from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue
from tests.forkwatch.family import RELEASE
from tests.forkwatch.guarded import guarded

CHILD = """
import os, time
from forkwatch.daemon.parent import end_with
end_with(os.getppid())
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def claimed(state: Path) -> Job:
    engine = open_engine(f"sqlite:///{state / 'forkwatch.db'}")
    queue = JobQueue(engine, wall_clock)
    queue.enqueue([NewJob(kind="learn", key="learn", role=Role.READ, payload={"release": RELEASE})])
    job = queue.claim((Role.READ,), "test")
    engine.dispose()
    assert job is not None
    return job


def test_what_comes_next_and_what_went_wrong_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guarded(tmp_path) as family:
        monkeypatch.setenv("FORKWATCH_STATE_DIR", str(family.state))
        settings = Settings.model_validate({"hub": {"endpoint": family.hub.endpoint}})
        job = claimed(family.state)
        (following,) = do_apart(settings, job)
        with pytest.raises(ElsewhereError, match="no/such"):
            do_apart(settings, replace(job, payload={"release": "no/such"}))
    assert (following.kind, following.role, following.again) == ("publish", Role.PUBLISH, True)
    assert following.not_before is not None


def test_it_ends_when_whoever_started_it_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip().isdigit()
        began = time.monotonic()
        parent.kill()
        assert parent.stdout.read() == b""  # the child holds the other end as long as it lives
    assert time.monotonic() - began < 300
