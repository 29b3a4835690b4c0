"""Jobs are claimed once, retried, set aside in sight, and never lost; on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from forkwatch.jobs.interface import LEASE, Job, JobState, NewJob, Role
from forkwatch.jobs.owner import machine, owner
from forkwatch.store.job_statements import claims
from forkwatch.store.jobs import JobQueue
from tests.forkwatch.past import Clock


def read(name: str, **options: object) -> NewJob:
    return NewJob(kind="read", key=f"read:{name}", role=Role.READ, payload={"repo": name}, **options)  # type: ignore[arg-type]


def claimed(queue: JobQueue, *roles: Role) -> Job:
    job = queue.claim(roles or (Role.READ,), "me")
    assert job is not None
    return job


def test_a_job_asked_for_twice_is_one(queue: JobQueue) -> None:
    assert queue.enqueue([read("a"), read("b")]) == 2
    assert queue.enqueue([read("b"), read("c")]) == 1
    assert [job.key for job in queue.jobs()] == ["read:a", "read:b", "read:c"]


def test_a_done_job_is_not_done_again(queue: JobQueue) -> None:
    queue.enqueue([read("a")])
    assert queue.finish(claimed(queue))
    assert queue.enqueue([read("a")]) == 0
    assert queue.claim((Role.READ,), "me") is None


def test_what_is_to_be_done_again_is_queued_again_and_never_lost(queue: JobQueue) -> None:
    site = read("site", again=True)
    queue.enqueue([site])
    assert queue.enqueue([site]) == 0
    running = claimed(queue)
    queue.enqueue([site])  # something changed after the work began
    assert queue.finish(running)
    second = claimed(queue)
    assert (second.id, second.attempts) == (running.id, 1)
    assert queue.finish(second)
    assert queue.claim((Role.READ,), "me") is None
    queue.enqueue([site])
    assert queue.fail(claimed(queue), "disk full", final=True) is JobState.QUARANTINED
    queue.enqueue([site])
    assert queue.finish(claimed(queue))
    assert [job.state for job in queue.jobs()] == [JobState.DONE]


def test_the_best_comes_first_and_asking_again_can_raise_it(queue: JobQueue) -> None:
    queue.enqueue([read("low"), read("high", priority=5), read("late", priority=1)])
    queue.enqueue([read("low", priority=9), read("high", priority=0)])
    assert [claimed(queue).payload["repo"] for _ in range(3)] == ["low", "high", "late"]


def test_only_those_of_the_role(queue: JobQueue) -> None:
    queue.enqueue([read("a"), NewJob(kind="eval", key="eval:a", role=Role.EVAL)])
    assert claimed(queue, Role.EVAL).kind == "eval"
    assert queue.claim((Role.EVAL, Role.CRAWL), "me") is None


def test_what_is_next_is_asked_for_with_the_finish_or_not_at_all(queue: JobQueue, clock: Clock) -> None:
    queue.enqueue([read("a")])
    lost = claimed(queue)
    clock.now += LEASE + timedelta(seconds=1)
    assert queue.reap() == 1
    again = claimed(queue)
    assert again.id == lost.id
    assert again.attempts == 2
    assert not queue.finish(lost, [read("b")]), "its lease is another's by now"
    assert queue.fail(lost, "late") is None
    assert not queue.extend(lost)
    assert not queue.give_back(lost)
    assert [job.key for job in queue.jobs(state=JobState.QUEUED)] == []
    assert queue.finish(again, [read("b")])
    assert [job.key for job in queue.jobs(state=JobState.QUEUED)] == ["read:b"]


def test_a_process_of_this_machine_that_is_gone_holds_nothing(queue: JobQueue) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    queue.enqueue([read("a"), read("b"), read("c")])
    for name in (f"{machine()}:{gone.pid}", owner(), "elsewhere:1:1"):
        assert queue.claim((Role.READ,), name) is not None
    assert queue.reap() == 1
    assert [job.payload["repo"] for job in queue.jobs(state=JobState.QUEUED)] == ["a"]


def test_a_worker_that_says_it_lives_keeps_its_job(queue: JobQueue, clock: Clock) -> None:
    queue.enqueue([read("a")])
    job = claimed(queue)
    for _ in range(3):
        clock.now += LEASE * 0.9
        assert queue.extend(job)
        assert queue.reap() == 0
    assert queue.finish(job)


def test_failures_wait_longer_each_time_and_then_are_set_aside(queue: JobQueue, clock: Clock) -> None:
    queue.enqueue([read("a")])
    for minutes in (1, 4):
        assert queue.fail(claimed(queue), "broken\x1b[31m pipe") is JobState.QUEUED
        assert queue.claim((Role.READ,), "me") is None
        clock.now += timedelta(minutes=minutes)
    assert queue.fail(claimed(queue), "broken\x1b[31m pipe") is JobState.QUARANTINED
    (job,) = queue.jobs(state=JobState.QUARANTINED)
    assert (job.attempts, "\x1b" in job.error, job.finished_at) == (3, False, clock())
    assert queue.retry([job.id]) == 1
    assert claimed(queue).attempts == 1


def test_a_job_that_kills_its_worker_each_time_is_set_aside(queue: JobQueue, clock: Clock) -> None:
    queue.enqueue([read("poison"), read("fine")])
    for _ in range(3):
        assert claimed(queue).payload["repo"] == "poison"
        clock.now += LEASE * 2
        assert queue.reap() == 1
    assert [job.payload["repo"] for job in queue.jobs(state=JobState.QUARANTINED)] == ["poison"]
    assert claimed(queue).payload["repo"] == "fine"


def test_work_given_back_costs_no_attempt(queue: JobQueue) -> None:
    queue.enqueue([read("a", max_attempts=1)])
    assert queue.give_back(claimed(queue))
    job = claimed(queue)
    assert job.attempts == 1
    assert queue.fail(job, "no use to retry", final=True) is JobState.QUARANTINED


def test_old_work_is_forgotten_and_what_was_set_aside_is_not(queue: JobQueue, clock: Clock) -> None:
    queue.enqueue([read("done"), read("poison")])
    queue.finish(claimed(queue))
    queue.fail(claimed(queue), "no", final=True)
    clock.now += timedelta(days=40)
    assert queue.purge(clock() - timedelta(days=30)) == 1
    assert [job.key for job in queue.jobs()] == ["read:poison"]
    assert {(depth.state, depth.count) for depth in queue.depths()} == {(JobState.QUARANTINED, 1)}


def test_workers_at_once_do_each_job_once(queue: JobQueue, engine: Engine) -> None:
    """Eight claim and finish at the same time; each job is finished by one, and follow-ups are asked once."""
    queue.enqueue([read(str(number), priority=number % 7) for number in range(120)])

    def work(_: int) -> list[int]:
        done = []
        while (job := queue.claim((Role.READ,), "w")) is not None:
            if queue.finish(job, [NewJob(kind="eval", key=f"eval:{job.id}", role=Role.EVAL)]):
                done.append(job.id)
        return done

    with ThreadPoolExecutor(8) as pool:
        counted = Counter(number for done in pool.map(work, range(8)) for number in done)
    assert len(counted) == 120
    assert set(counted.values()) == {1}
    assert {(depth.role, depth.state): depth.count for depth in queue.depths()} == {
        (Role.READ, JobState.DONE): 120,
        (Role.EVAL, JobState.QUEUED): 120,
    }


def test_the_next_job_is_claimed_with_the_end_of_one(queue: JobQueue, engine: Engine) -> None:
    queue.enqueue([read("a", priority=3), read("b", priority=2)])
    first = claimed(queue)
    held, second = queue.finish_and_claim(first, [], [Role.READ], "me")
    assert held
    assert (second is not None) == (engine.dialect.name == "postgresql")
    second = second or claimed(queue)
    assert (second.key, second.attempts, second.owner) == ("read:b", 1, "me")
    assert queue.finish_and_claim(first, [read("c")], [Role.READ], "me") == (False, None)
    assert queue.finish_and_claim(second, [], [Role.READ], "me") == (True, None)
    assert {job.key: job.state for job in queue.jobs()} == {"read:a": JobState.DONE, "read:b": JobState.DONE}


def test_workers_that_claim_with_the_end_do_each_job_once(queue: JobQueue) -> None:
    queue.enqueue([read(str(number), priority=number % 7) for number in range(120)])

    def work(_: int) -> list[int]:
        done, job = [], queue.claim((Role.READ,), "w")
        while job is not None:
            held, following = queue.finish_and_claim(job, [], (Role.READ,), "w")
            done += [job.id] if held else []
            job = following or queue.claim((Role.READ,), "w")
        return done

    with ThreadPoolExecutor(8) as pool:
        counted = Counter(number for done in pool.map(work, range(8)) for number in done)
    assert len(counted) == 120
    assert set(counted.values()) == {1}
    assert {job.state for job in queue.jobs(limit=200)} == {JobState.DONE}


def test_a_claim_walks_along_what_waits(engine: Engine) -> None:
    """Not along what is done: months of it lie in the table."""
    roles = frozenset(Role)
    statement = claims(roles).compile(dialect=engine.dialect)
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    values = {
        **statement.params,
        "now": datetime.now(UTC),
        "until": datetime.now(UTC),
        "new_owner": "",
        "new_lease": "",
    }
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":  # it would read a table as small as this one from end to end
            connection.exec_driver_sql("SET enable_seqscan = off")
            connection.exec_driver_sql("SET enable_bitmapscan = off")
        given = (
            values if statement.positiontup is None else tuple(str(values[n]) for n in statement.positiontup)
        )
        plan = "\n".join(str(row) for row in connection.exec_driver_sql(f"{explain} {statement}", given))

    assert plan.count("ix_job_queued") == len(roles)


def test_the_best_of_all_roles_is_claimed(queue: JobQueue) -> None:
    """A worker of every role takes them by priority, whatever the role."""
    roles = (Role.EVAL, Role.READ, Role.CRAWL, Role.READ)
    queue.enqueue([NewJob(kind="k", key=str(n), role=role, priority=n) for n, role in enumerate(roles)])

    taken = [queue.claim(tuple(Role), "w") for _ in range(5)]
    assert [None if job is None else job.key for job in taken] == ["3", "2", "1", "0", None]


def test_asking_again_for_many_touches_those_that_rise(queue: JobQueue) -> None:
    """A crawl asks for every fork that there is, more of them than fit into one statement."""
    many = [NewJob(kind="k", key=str(n), role=Role.READ, priority=1.0) for n in range(1200)]

    assert queue.enqueue(many) == 1200
    assert queue.enqueue([*many[:-1], replace(many[-1], priority=2.0), replace(many[0], key="new")]) == 1
    best = queue.claim([Role.READ], "w")
    assert best is not None
    assert best.key == "1199"


def test_all_that_is_aside_is_tried_again(queue: JobQueue) -> None:
    """Without a list of them."""
    queue.enqueue([NewJob(kind="k", key=str(n), role=Role.READ) for n in range(3)])
    for _ in range(2):
        job = queue.claim([Role.READ], "w")
        assert job is not None
        queue.fail(job, "no", final=True)

    assert queue.retry() == 2
    assert [job.attempts for job in queue.jobs(state=JobState.QUEUED)] == [0, 0, 0]
