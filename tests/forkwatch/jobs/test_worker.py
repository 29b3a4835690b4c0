"""A worker does what it claims, survives what fails, and ends rather than hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forkwatch.jobs import worker as module
from forkwatch.jobs.interface import LEASE, Job, JobState, NewJob, Role
from forkwatch.jobs.worker import EXIT_HUNG, Handler, Hopeless, Watch, Worker, WorkerOptions
from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue

ROLES = (Role.READ, Role.PUBLISH)


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue(open_engine(f"sqlite:///{tmp_path / 'queue.db'}"), lambda: datetime.now(UTC))


def job(name: str, kind: str = "work", **options: object) -> NewJob:
    return NewJob(kind=kind, key=name, role=Role.READ, **options)  # type: ignore[arg-type]


def work(
    queue: JobQueue,
    handlers: dict[str, Handler],
    *,
    timeout: float = 60.0,
    ended: Callable[[int], None] | None = None,
) -> int:
    options = WorkerOptions(
        roles=ROLES, owner="test", timeouts=dict.fromkeys(Role, timeout), grace_seconds=0.2, drain=True
    )
    return Worker(queue, handlers, options, Watch(queue, options, ended or pytest.fail)).run()


def states(queue: JobQueue) -> dict[str, JobState]:
    return {each.key: each.state for each in queue.jobs()}


def test_jobs_and_what_they_ask_for_are_done(queue: JobQueue) -> None:
    seen: list[str] = []

    def handle(each: Job) -> Sequence[NewJob]:
        seen.append(each.key)
        return [job("second")] if each.key == "first" else []

    queue.enqueue([job("first")])
    assert work(queue, {"work": handle}) == 2
    assert seen == ["first", "second"]
    assert set(states(queue).values()) == {JobState.DONE}


def test_a_worker_that_ends_holds_no_job(queue: JobQueue) -> None:
    """Told to stop just as its next job was claimed, it gives that back; at its last job it claims none."""
    queue.enqueue([job("first"), job("second"), job("third"), job("fourth")])
    options = WorkerOptions(roles=ROLES, owner="test", timeouts=dict.fromkeys(Role, 60.0), max_jobs=2)
    done = {"work": lambda _: ()}
    working = Worker(queue, done, options, Watch(queue, options, pytest.fail))
    working.told = lambda *_: working.stopping.set()
    assert working.run() == 1
    assert {each.key: each.attempts for each in queue.jobs()} == {
        "first": 1,
        "second": 0,
        "third": 0,
        "fourth": 0,
    }
    assert Worker(queue, done, options, Watch(queue, options, pytest.fail)).run() == 2
    assert list(states(queue).values()) == [*(3 * [JobState.DONE]), JobState.QUEUED]


def test_a_job_that_fails_waits_and_the_others_go_on(queue: JobQueue) -> None:
    def handle(each: Job) -> Sequence[NewJob]:
        if each.key == "bad":
            raise ValueError("no such tensor")
        if each.key == "hopeless":
            raise Hopeless("nothing to publish")
        return ()

    queue.enqueue([job("bad"), job("hopeless"), job("good"), job("strange", kind="tomorrow")])
    assert work(queue, {"work": handle}) == 4
    assert states(queue) == {
        "bad": JobState.QUEUED,
        "hopeless": JobState.QUARANTINED,
        "good": JobState.DONE,
        "strange": JobState.QUARANTINED,
    }
    errors = {each.key: each.error for each in queue.jobs()}
    assert errors["bad"] == "ValueError: no such tensor"
    assert "tomorrow" in errors["strange"]


def test_a_job_that_hangs_ends_the_process_and_counts_as_failed(queue: JobQueue) -> None:
    statuses: list[int] = []
    released = threading.Event()

    def end(status: int) -> None:
        statuses.append(status)
        released.set()

    def hang(_: Job) -> Sequence[NewJob]:
        assert released.wait(10), "the watch did not end the process"
        return ()

    queue.enqueue([job("slow", max_attempts=1)])
    work(queue, {"work": hang}, timeout=0.1, ended=end)
    assert statuses[0] == EXIT_HUNG
    (slow,) = queue.jobs()
    assert slow.state is JobState.QUARANTINED
    assert slow.error.startswith("took longer than")


def test_a_worker_that_is_told_to_stop_finishes_or_gives_back(queue: JobQueue) -> None:
    released = threading.Event()
    queue.enqueue([job("long"), job("next")])
    options = WorkerOptions(roles=ROLES, owner="test", timeouts=dict.fromkeys(Role, 60.0), grace_seconds=0.1)
    told: list[int] = []

    def end(status: int) -> None:
        told.append(status)
        released.set()

    def handle(_: Job) -> Sequence[NewJob]:
        working.stop()
        assert released.wait(10)
        return ()

    working = Worker(queue, {"work": handle}, options, Watch(queue, options, end))
    assert working.run() == 1
    assert told[0] == EXIT_HUNG
    assert states(queue) == {"long": JobState.QUEUED, "next": JobState.QUEUED}
    assert [each.attempts for each in queue.jobs()] == [0, 0]


def test_a_long_job_keeps_its_lease(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE", timedelta(seconds=0.4))

    def handle(each: Job) -> Sequence[NewJob]:
        before = queue.jobs()[0].leased_until
        time.sleep(1.2)
        after = queue.jobs()[0].leased_until
        assert before is not None
        assert after is not None
        assert after > before
        assert each.lease
        return ()

    queue.enqueue([job("long")])
    work(queue, {"work": handle})
    assert states(queue) == {"long": JobState.DONE}
    assert timedelta(minutes=1) < LEASE
