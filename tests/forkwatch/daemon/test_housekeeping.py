"""What looks after leases, clock and alerts goes on, whatever it meets, and says what hinders it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from crawler.errors_map import TransientError
from crawler.interface import HubUnavailableError
from forkwatch.clock import Jumps
from forkwatch.daemon.health import Health
from forkwatch.daemon.housekeeping import Housekeeping, Reaper
from forkwatch.jobs.interface import JobState, NewJob, Role
from forkwatch.pipeline.quarantine import UNREACHABLE
from forkwatch.sections.telling import AlertSettings
from forkwatch.settings import Settings
from forkwatch.store.jobs import JobQueue
from forkwatch.store.outbox import Outbox
from forkwatch.store.schedules import Schedules
from forkwatch.store.store import Store
from tests.forkwatch.past import DAY, Clock


def health(store: Store, clock: Clock, root: Path, *, floor: int = 0) -> Health:
    engine = store.engine
    queue, outbox, schedules = JobQueue(engine, clock), Outbox(engine, clock), Schedules(engine, clock)
    return Health(queue, outbox, schedules, clock, 24.0, dict, root, floor)


def test_a_full_disk_is_no_readiness(store: Store, clock: Clock, tmp_path: Path) -> None:
    assert health(store, clock, tmp_path).problems() == ()
    (problem,) = health(store, clock, tmp_path, floor=1 << 60).problems()
    assert problem.startswith("the disk is full: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("no space"), "leases, alerts and schedule are not looked after: OSError"),
        (OperationalError("SELECT", {}, OSError("away")), "the database cannot be used: OSError"),
    ],
)
def test_who_is_told_of_the_clock_is_told_until_it_was_heard(
    store: Store, clock: Clock, tmp_path: Path, error: Exception, said: str
) -> None:
    heard: list[timedelta] = []
    outcomes: list[Exception | None] = [error, error, None]

    def clock_was_set(by: timedelta) -> None:
        if (wrong := outcomes.pop(0)) is not None:
            raise wrong
        heard.append(by)

    state = health(store, clock, tmp_path)
    house = Housekeeping(Settings(), store, state, clock_was_set, Jumps(now=clock, steady=lambda: 0.0))
    clock.now -= DAY
    for _ in range(2):
        house.look()
        assert state.problems() == (said,)
    house.look()
    house.look()
    assert (heard, outcomes) == ([-DAY], [])
    assert state.problems() == ()


def test_a_clock_that_is_set_during_a_look_stalls_no_crawl(
    store: Store, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = health(store, clock, tmp_path)
    state.schedules.asked("crawl")
    state.schedules.succeeded("crawl")
    settings, jumps = Settings(alerts=AlertSettings(command=("false",))), Jumps(clock, lambda: 0.0)
    house = Housekeeping(settings, store, state, lambda _: state.clock_was_set(), jumps)
    days = iter((2 * DAY, 0 * DAY))

    def reap(_: Reaper) -> int:
        clock.now += next(days)
        return 0

    monkeypatch.setattr(Reaper, "reap", reap)
    for _ in range(2):
        house.look()
        assert state.outbox.waiting() == 0
    assert state.stalled_since() is None


def test_what_the_hub_refused_is_tried_again_when_it_answers(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    state = health(store, clock, tmp_path)
    house = Housekeeping(Settings(), store, state, lambda _: None, Jumps(clock, lambda: 0.0))
    refused, wrong = TransientError("503"), ValueError("HubUnavailableError: a fork says so")
    for error in (refused, wrong):
        state.queue.enqueue([NewJob(kind="learn", key=f"learn:{error}", role=Role.READ)])
        job = state.queue.claim((Role.READ,), "me")
        assert job is not None
        state.queue.fail(job, f"{type(error).__name__}: {error}", final=True)
    state.schedules.succeeded("crawl")
    house.look()
    assert {job.state for job in state.queue.jobs()} == {
        JobState.QUARANTINED
    }  # that crawl says nothing of it
    clock.now += DAY
    state.schedules.succeeded("crawl")
    house.look()
    assert {job.key: job.state for job in state.queue.jobs()} == {
        "learn:503": JobState.QUEUED,
        f"learn:{wrong}": JobState.QUARANTINED,
    }


def test_errors_of_an_unreachable_hub_are_known_by_name() -> None:
    kinds = (HubUnavailableError, *HubUnavailableError.__subclasses__())
    assert {kind.__name__ for kind in kinds} == UNREACHABLE
