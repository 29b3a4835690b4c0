"""A worker that dies of a fork, whatever kills it, sets the fork aside in sight of the report's reader."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from crawler.budget import ByteBudget
from crawler.interface import Access, BudgetExceededError
from evals.interface import NoMemoryError
from forkwatch.daemon.housekeeping import Reaper
from forkwatch.jobs.interface import JobState, NewJob, Role
from forkwatch.jobs.worker import Watch, Worker, WorkerOptions
from forkwatch.pipeline import tasks
from forkwatch.pipeline.quarantine import show_quarantined
from forkwatch.pipeline.tasks import replace_role, scan_key
from forkwatch.settings import Settings, gib
from forkwatch.store.jobs import JobQueue
from forkwatch.store.memory import StoreMemory
from forkwatch.store.store import Store
from tests.forkwatch.past import A, batch, summary
from tests.forkwatch.samples import RELEASE, SNAPSHOT

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


SETTINGS = Settings()


@pytest.fixture
def queue(store: Store) -> JobQueue:
    return JobQueue(store.engine, lambda: datetime.now(UTC))


def asked(store: Store, release: int, **seen: object) -> tuple[NewJob, NewJob]:
    """What a reader and an evaluator are asked about a fork that looks so."""
    StoreMemory(store, release).keep(batch(summary(**seen)))  # type: ignore[arg-type]  # `summary` checks them
    known, (row,) = store.candidate(release, A), store.releases()
    assert known is not None
    read = NewJob(
        kind="scan",
        key=scan_key(SETTINGS, row, known),
        role=Role.READ,
        payload={"release": RELEASE, "repo": A},
    )
    return read, replace_role(read, Role.EVAL)


def gap(store: Store, release: int) -> str | None:
    known = store.candidate(release, A)
    assert known is not None
    return known.gap


def set_aside(queue: JobQueue, error: str) -> None:
    job = queue.claim(tuple(Role), "me")
    assert job is not None
    assert queue.fail(job, error, final=True) is JobState.QUARANTINED


def test_a_fork_that_kills_its_evaluators_is_set_aside_and_shown(
    store: Store, release: int, queue: JobQueue, tmp_path: Path
) -> None:
    queue.enqueue([replace(asked(store, release)[1], max_attempts=2)])
    shown: set[int] = set()
    for number in (signal.SIGSEGV, signal.SIGKILL):
        assert show_quarantined(SETTINGS, store, queue, shown) == 0
        url = f"sqlite:///{tmp_path / 'test.db'}"
        died = subprocess.run([sys.executable, "-c", DIES, url, str(int(number))], check=False)
        assert died.returncode == -number
        assert Reaper(queue).reap() == 1
    assert show_quarantined(SETTINGS, store, queue, shown) == 1
    assert show_quarantined(SETTINGS, store, queue, shown) == 0
    assert gap(store, release) == "set aside after 2 attempts: the worker died or was killed"
    states = {job.kind: job.state for job in queue.jobs()}
    assert states == {"scan": JobState.QUARANTINED, "publish": JobState.QUEUED}
    assert show_quarantined(SETTINGS, store, queue, set()) == 0  # the next daemon


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            "NoMemoryError: the model does not fit into memory",
            "set aside after 1 attempt: the model does not fit into memory",
        ),
        (
            "OperationalError: connection to server at 10.0.0.5 failed",
            "set aside after 1 attempt: OperationalError",
        ),
        ("took longer than 9 s", "set aside after 1 attempt: took longer than 9 s"),
    ],
)
def test_the_report_says_why_and_nothing_about_the_machine(
    store: Store, release: int, queue: JobQueue, error: str, told: str
) -> None:
    queue.enqueue([asked(store, release)[1]])
    set_aside(queue, error)
    assert show_quarantined(SETTINGS, store, queue, set()) == 1
    assert gap(store, release) == told


def test_what_was_set_aside_before_says_nothing_about_what_was_examined_since(
    store: Store, release: int, queue: JobQueue
) -> None:
    queue.enqueue([asked(store, release)[0]])
    set_aside(queue, "BadAnswerError: strange")
    later = asked(store, release, commit="d")[0]
    queue.enqueue([later])
    job = queue.claim((Role.READ,), "me")
    assert job is not None
    assert (job.key, queue.finish(job)) == (later.key, True)
    assert show_quarantined(SETTINGS, store, queue, set()) == 0
    assert gap(store, release) is None
    assert [job.kind for job in queue.jobs()] == ["scan", "scan"]


def test_a_fork_that_is_opened_is_asked_for_again(store: Store, release: int) -> None:
    """Without a commit."""
    gated = asked(store, release, access=Access.GATED)[0]
    assert asked(store, release)[0].key != gated.key


def test_a_fork_over_its_budget_is_asked_for_again_when_there_is_another(store: Store, release: int) -> None:
    asked(store, release)
    (row,), known = store.releases(), store.candidate(release, A)
    assert known is not None
    allowed, raised = (Settings.model_validate({"hub": {"repo_budget_gb": gb}}) for gb in (1, 1000))
    snapshot, budget = replace(SNAPSHOT, repo=A), ByteBudget(gib(allowed.hub.repo_budget_gb))
    with pytest.raises(BudgetExceededError) as refused:
        budget.take(snapshot, 2 << 30)
    store.set_gap(release, known.repo_id, str(refused.value), refused.value.limit)
    after = store.candidate(release, A)
    assert after is not None
    assert scan_key(allowed, row, after) == scan_key(allowed, row, known)
    assert scan_key(raised, row, known) == scan_key(allowed, row, known)
    assert scan_key(raised, row, after) != scan_key(raised, row, known)


def test_an_evaluation_that_fails_is_tried_again_when_somebody_asks(
    store: Store, release: int, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue([replace(asked(store, release)[1], max_attempts=1)])
    outcomes = iter([NoMemoryError("it does not fit"), None])
    seen: list[str] = []

    def scan(_context: object, _original: object, repo: str, **_: object) -> None:
        seen.append(repo)
        if (error := next(outcomes)) is not None:
            raise error

    original = SimpleNamespace(release_id=release, repo=RELEASE, root_digest="sha256:1")
    monkeypatch.setattr(tasks, "open_original", lambda *_: original)
    monkeypatch.setattr(tasks, "scan", scan)
    context = SimpleNamespace(store=store, deferred=frozenset())
    options = WorkerOptions(roles=(Role.EVAL,), owner="me", timeouts=dict.fromkeys(Role, 60.0), drain=True)

    def work() -> None:
        doing = tasks.handlers(context)  # type: ignore[arg-type]  # of a context it needs the store
        Worker(queue, doing, options, Watch(queue, options, pytest.fail)).run()

    work()
    assert show_quarantined(SETTINGS, store, queue, set()) == 1
    assert gap(store, release) == "set aside after 1 attempt: it does not fit"
    assert queue.retry() == 1
    work()
    assert seen == [A, A]
    assert [job.state for job in queue.jobs() if job.kind == "scan"] == [JobState.DONE]
