"""The wall's clock is set by a day: nothing is taken away, forgotten, doubled or stuck."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from forkwatch.clock import Jumps
from forkwatch.daemon.health import Health
from forkwatch.daemon.housekeeping import Reaper
from forkwatch.daemon.schedule import Asker, Calendar
from forkwatch.jobs.interface import LEASE, Job, JobState, NewJob, Role
from forkwatch.sections.running import DaemonSettings
from forkwatch.store.jobs import JobQueue
from forkwatch.store.outbox import Outbox
from forkwatch.store.schedules import Schedules
from tests.forkwatch.past import DAY, Clock

ROLES = tuple(Role)
HOUR = timedelta(hours=1)


class Steady:
    """Seconds that only go forwards."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def queue(engine: Engine, clock: Clock) -> JobQueue:
    return JobQueue(engine, clock)


@pytest.fixture
def asker(engine: Engine, queue: JobQueue, clock: Clock) -> Asker:
    return Asker(queue, Schedules(engine, clock), lambda: ("lab/model",), clock)


@pytest.fixture
def calendar(asker: Asker) -> Iterator[Calendar]:
    made = Calendar(DaemonSettings(), asker)
    yield made
    made.shutdown()


def claimed(queue: JobQueue) -> Job:
    job = queue.claim(ROLES, "elsewhere:1:1")
    assert job is not None
    return job


def crawls(queue: JobQueue) -> int:
    return sum(job.kind == "crawl" and job.state is JobState.QUEUED for job in queue.jobs())


@pytest.mark.parametrize("by", [DAY, -DAY])
def test_a_jump_is_noticed_once_and_time_that_passes_is_none(clock: Clock, by: timedelta) -> None:
    steady = Steady()
    jumps = Jumps(clock, steady)
    clock.now, steady.now = clock.now + HOUR, steady.now + 3601.5
    assert jumps.look() == timedelta(0)
    clock.now += by
    assert jumps.look() == by
    assert jumps.look() == timedelta(0)


@pytest.mark.parametrize("by", [DAY, -DAY, timedelta(0)])
def test_who_extends_keeps_the_lease_and_who_does_not_loses_it(
    queue: JobQueue, clock: Clock, by: timedelta
) -> None:
    steady = Steady()
    reaper = Reaper(queue, steady)
    queue.enqueue([NewJob(kind="work", key=name, role=Role.READ) for name in ("lives", "dead")])
    lives, dead = claimed(queue), claimed(queue)
    clock.now += by
    quarter = LEASE / 4
    for _ in range(4):
        assert reaper.reap() == 0
        clock.now, steady.now = clock.now + quarter, steady.now + quarter.total_seconds()
        assert queue.extend(lives)
    steady.now += 1
    assert reaper.reap() == 1
    assert queue.finish(lives)
    assert not queue.finish(dead)
    assert {job.key: job.state for job in queue.jobs()} == {"lives": "done", "dead": "queued"}


def test_crawls_go_on_when_the_clock_went_back(
    queue: JobQueue, clock: Clock, asker: Asker, calendar: Calendar
) -> None:
    for _ in range(3):
        queue.finish(claimed(queue))
        clock.now += HOUR
        asker.crawl(HOUR)
    queue.finish(claimed(queue))
    clock.now -= 2 * HOUR
    calendar.clock_was_set(-2 * HOUR)
    clock.now += HOUR
    asker.crawl(HOUR)
    assert crawls(queue) == 1, "this slot was asked for when the clock was ahead"


def test_a_clock_that_went_back_while_nobody_ran_is_noticed(
    queue: JobQueue, clock: Clock, asker: Asker
) -> None:
    clock.now += DAY
    Calendar(DaemonSettings(), asker).shutdown()
    queue.finish(claimed(queue))
    clock.now -= DAY
    Calendar(DaemonSettings(), asker).shutdown()
    assert crawls(queue) == 1


def test_waits_end_when_they_would_have(queue: JobQueue, clock: Clock) -> None:
    """A site that waits five minutes for more changes does not wait for a day."""
    site = NewJob(kind="publish", key="publish", role=Role.PUBLISH, not_before=clock.now + HOUR, again=True)
    queue.enqueue([site])
    clock.now -= DAY
    queue.clock_went_back(DAY)
    clock.now += HOUR - timedelta(seconds=1)
    assert queue.claim(ROLES, "me") is None
    clock.now += timedelta(seconds=1)
    assert claimed(queue).key == "publish"


@pytest.mark.parametrize("by", [DAY, -DAY])
def test_what_changed_during_the_work_is_done_once_more(queue: JobQueue, clock: Clock, by: timedelta) -> None:
    site = NewJob(kind="publish", key="publish", role=Role.PUBLISH, again=True)
    queue.enqueue([site])
    running = claimed(queue)
    clock.now += by
    queue.enqueue([site])
    assert queue.finish(running)
    assert queue.finish(claimed(queue))
    assert queue.claim(ROLES, "me") is None


def test_one_digest_a_week_whatever_the_clock_does(queue: JobQueue, clock: Clock, asker: Asker) -> None:
    clock.now = datetime(2026, 2, 1, 12, tzinfo=UTC)  # a Sunday
    clock.now += DAY
    asker.digest()
    clock.now -= DAY
    queue.clock_went_back(DAY)
    asker.digest()
    clock.now += DAY
    asker.digest()
    keys = [job.key for job in queue.jobs() if job.kind == "digest"]
    assert sorted(keys) == ["digest:2026-W04", "digest:2026-W05"]


def test_a_day_that_did_not_pass_stalls_no_crawl(
    engine: Engine, queue: JobQueue, clock: Clock, tmp_path: Path
) -> None:
    schedules = Schedules(engine, clock)
    health = Health(queue, Outbox(engine, clock), schedules, clock, 24.0, dict, tmp_path, 0)
    schedules.asked("crawl")
    schedules.succeeded("crawl")
    clock.now += DAY + HOUR
    health.clock_was_set()
    assert health.stalled_since() is None
    clock.now += DAY + HOUR
    assert health.stalled_since() is not None


def test_a_daemon_that_starts_calls_no_crawl_stalled_until_it_had_time_for_one(
    engine: Engine, queue: JobQueue, clock: Clock, tmp_path: Path
) -> None:
    schedules = Schedules(engine, clock)
    schedules.asked("crawl")
    schedules.succeeded("crawl")
    clock.now += 2 * DAY  # nobody ran, or the clock was two days slow
    health = Health(queue, Outbox(engine, clock), schedules, clock, 24.0, dict, tmp_path, 0)
    assert health.stalled_since() is None
    clock.now += HOUR + timedelta(seconds=1)
    assert health.stalled_since() is not None
