"""What looks after leases, clock and alerts goes on, whatever it meets, and says what hinders it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from forkwatch.clock import Jumps
from forkwatch.daemon.health import Health
from forkwatch.daemon.housekeeping import Housekeeping
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
