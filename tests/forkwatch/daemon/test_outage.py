"""The Hub is down for hours, on the virtual clock: one alert, no job lost, and all is caught up after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest

from forkwatch.cli.session import session
from forkwatch.daemon.health import Health
from forkwatch.daemon.housekeeping import Housekeeping
from forkwatch.daemon.schedule import Asker
from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.demo.hub.faults import Route
from forkwatch.jobs.interface import JobState, Role
from forkwatch.jobs.worker import Watch, Worker, WorkerOptions
from forkwatch.pipeline import tasks
from forkwatch.pipeline.context import Context, Silent
from forkwatch.sections.hub import HubSettings
from forkwatch.sections.telling import AlertSettings
from forkwatch.settings import Settings
from forkwatch.state import StateDir
from forkwatch.store.jobs import JobQueue
from forkwatch.store.outbox import Outbox
from forkwatch.store.schedules import Schedules
from forkwatch.store.store import Store
from tests.forkwatch.conftest import guarded
from tests.forkwatch.past import Clock
from tests.forkwatch.samples import RELEASE as GUARDED

TEN_MINUTES = timedelta(minutes=10)
CARD = f"---\nbase_model: {GUARDED}\n---\n".encode()


class Box:
    """A daemon without its processes: what it asks for, does and tells, at the time of a virtual clock."""

    def __init__(self, context: Context, clock: Clock, told: Path) -> None:
        self.clock, self.told = clock, told
        engine = context.store.engine
        self.queue, self.schedules = JobQueue(engine, clock), Schedules(engine, clock)
        store = Store(engine, clock)
        self.asker = Asker(self.queue, self.schedules, lambda: (GUARDED,), clock)
        outbox = Outbox(engine, clock)
        health = Health(self.queue, outbox, self.schedules, clock, 0.5, dict, context.state.root, 0)
        self.house = Housekeeping(context.settings, store, health, lambda _: None)
        self.handlers = tasks.handlers(context)

    def passes(self) -> None:
        """Ten minutes: the schedule asks, a worker does what it may, the house is kept."""
        self.clock.now += TEN_MINUTES
        self.asker.crawl(TEN_MINUTES)
        options = WorkerOptions(
            roles=(Role.CRAWL,), owner="me", timeouts=dict.fromkeys(Role, 60.0), drain=True
        )
        Worker(self.queue, self.handlers, options, Watch(self.queue, options, pytest.fail)).run()
        self.house.look()

    def alerts(self) -> list[str]:
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return [json.loads(line)["kind"] for line in lines]


@pytest.fixture
def box(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Box, LoopbackHub]]:
    told = tmp_path / "told"
    monkeypatch.setattr(tasks, "wall_clock", clock)
    with LoopbackHub() as hub:
        hub.create_repo(GUARDED)
        hub.commit(GUARDED, {"README.md": b"# A model\n"})
        hub.create_repo("early/fork")
        hub.commit("early/fork", {"README.md": CARD})
        settings = Settings(
            hub=HubSettings(endpoint=hub.endpoint, retries=0, free_space_floor_gb=0),
            alerts=AlertSettings(command=("/bin/sh", "-c", f"cat >> {told}; echo >> {told}"), upstream=False),
        )
        with session(settings, StateDir(tmp_path / "state"), talk=Silent()) as context:
            row = guarded()
            row.manifest = {"root_digest": row.root_digest, "files": []}
            context.store.add_release(row)
            yield Box(replace(context, now=clock), clock, told), hub


def test_an_hour_without_the_hub(box: tuple[Box, LoopbackHub]) -> None:
    daemon, hub = box
    daemon.passes()
    assert daemon.alerts() == []
    for route in get_args(Route):
        hub.inject(Fault(route, "reset", times=-1))
    for _ in range(6):
        daemon.passes()
    assert daemon.alerts() == ["stalled"]
    hub.create_repo("late/fork")
    hub.commit("late/fork", {"README.md": CARD})
    hub.clear_faults()
    for _ in range(3):
        daemon.passes()
    assert daemon.alerts() == ["stalled"]
    assert daemon.house.health.stalled_since() is None
    assert {job.payload["repo"] for job in daemon.queue.jobs() if job.kind == "scan"} >= {"late/fork"}
    crawls = [job.state for job in daemon.queue.jobs() if job.kind == "crawl"]
    assert set(crawls) <= {JobState.DONE}
