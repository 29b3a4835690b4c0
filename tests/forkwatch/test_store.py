"""The store, on a real SQLite database brought up by its migrations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import TypeAdapter
from sqlalchemy import Engine
from sqlmodel import SQLModel

from crawler.interface import Candidate, Channel
from crawler.sources.interface import Batch
from detector.interface import FileMatch
from forkwatch.store.engine import open_engine
from forkwatch.store.memory import StoreMemory
from forkwatch.store.models import Release
from forkwatch.store.store import Store
from forkwatch.store.values import Spent, StageKey
from forkwatch.store.verdict_log import verdict_log
from tests.forkwatch.samples import DECLARED, FORK, MATCH, RELEASE, SNAPSHOT
from tests.reports.samples import FORKS, scan

_MATCH = TypeAdapter(FileMatch)


class Clock:
    """A clock that moves a minute at every look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'test.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine, Clock())


def _release(store: Store, commit: str = "a" * 40) -> int:
    row = store.add_release(
        Release(
            repo=RELEASE,
            commit=commit,
            root_digest="sha256:" + "1" * 64,
            signer="ecdsa-sha256:" + "2" * 64,
            trust={"signers": [], "legacy": False, "unsigned": True},
            status="unsigned",
            signature="model.sig",
            suite="3" * 64,
            manifest={},
            added_at=datetime(2026, 1, 1, tzinfo=UTC),
            verified_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
    )
    assert row.id is not None
    return row.id


def test_migrations_make_the_tables_of_the_models(engine: Engine) -> None:
    """After `upgrade head`, the database and the models do not differ."""
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_opening_twice_is_harmless(tmp_path: Path) -> None:
    """A database that is up to date is left as it is."""
    for _ in range(2):
        open_engine(f"sqlite:///{tmp_path / 'twice.db'}").dispose()


def test_result_is_read_back_as_stored(store: Store) -> None:
    """A result comes back equal, under its own key only."""
    snapshot = store.pin(SNAPSHOT)
    key = StageKey(snapshot, "sha256:root", "match", "1")
    store.put_result(key, _MATCH, MATCH, Spent(1.5, 2, 300))

    found = store.result(key, _MATCH)

    assert found is not None
    assert found[0] == MATCH
    assert store.result(replace(key, version="2"), _MATCH) is None
    assert store.result(replace(key, root_digest="sha256:other"), _MATCH) is None
    assert store.spent(snapshot, "sha256:root") == Spent(1.5, 2, 300)


def test_a_result_that_another_process_kept_meanwhile_stays(store: Store) -> None:
    """Both computed it: the first one is kept, and the second is no error."""
    key = StageKey(store.pin(SNAPSHOT), "sha256:root", "match", "1")
    for seconds in (1.0, 2.0):
        store.put_result(key, _MATCH, MATCH, Spent(seconds, 0, 0))

    assert store.spent(key.snapshot_id, "sha256:root").seconds == 1.0


def test_pinning_twice_is_one_snapshot(store: Store) -> None:
    """A commit is one snapshot; changed download figures are a new sample of it, not a new snapshot."""
    first = store.pin(SNAPSHOT, head=True)
    second = store.pin(replace(SNAPSHOT, downloads=99), head=True)

    assert first == second
    assert [sample.downloads for sample in store.histories([1])[1].samples] == [99]


def test_candidates_are_remembered(store: Store) -> None:
    """A candidate is new once; its claims come back as values, and its gap can be set and cleared."""
    release = _release(store)
    batch = Batch("name:guarded", None, (Candidate(FORK, (Channel.DECLARED,), (DECLARED,)),), 1)

    found = []
    for _ in range(2):
        memory = StoreMemory(store, release)
        memory.keep(batch)
        found.append(len(memory.kept.new))

    assert found == [1, 0]
    known = store.candidate(release, FORK)
    assert known is not None
    assert known.claims == (DECLARED,)
    store.set_gap(release, known.repo_id, "gated")
    assert [known.gap for known in store.candidates(release)] == ["gated"]


def test_verdicts_are_appended_only_when_they_say_something_new(store: Store) -> None:
    """Another download figure is no new verdict; another label is, and supersedes the last."""
    release, snapshot = _release(store), store.pin(SNAPSHOT)
    first = replace(scan(FORKS[0]), repo=FORK)
    busier = replace(first, hub=replace(first.hub, downloads=first.hub.downloads + 1))
    changed = replace(first, verdict=replace(first.verdict, label="inconclusive"))

    appended = [store.add_verdict(release, snapshot, document) for document in (first, busier, changed)]

    assert appended == [True, False, True]
    log = store.verdicts(release)
    assert [(verdict.before, verdict.document.verdict.label) for verdict in log] == [
        (None, first.verdict.label),
        (first.verdict.label, "inconclusive"),
    ]


def test_adding_a_release_again_moves_its_pin(store: Store) -> None:
    """One row a release; the new commit replaces the old one."""
    assert _release(store) == _release(store, commit="f" * 40)
    assert [row.commit for row in store.releases()] == ["f" * 40]


def test_times_as_texts_are_what_isoformat_writes(engine):
    """To the second, also of a clock in another zone, and in the order of the times."""
    moments = [
        datetime(2026, 1, 1, 0, 30, 5, 999_999, tzinfo=timezone(timedelta(hours=2))),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
    ]
    now = moments[0]
    store = Store(engine, lambda: now)
    release_id, snapshot_id = _release(store), store.pin(SNAPSHOT)
    for now, each in zip(moments, FORKS, strict=False):  # noqa: B007 - the store's clock says it
        store.add_verdict(release_id, snapshot_id, scan(each))
    at = [verdict.at for verdict in verdict_log(store, release_id)]
    assert at == sorted(at) == [time.astimezone(UTC).isoformat(timespec="seconds") for time in moments]
