"""A database of an earlier version, upgraded."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from sqlalchemy import create_engine, text

from crawler.history import EventKind
from crawler.interface import (
    Claim,
    Relation,
)
from detector.provenance.interface import KeyTrust, Trust
from forkwatch.store import engine as engine_module
from forkwatch.store.engine import NewerDatabaseError, open_engine, upgrade
from forkwatch.store.memory import StoreMemory
from forkwatch.store.store import Store
from forkwatch.trust import TrustPolicy, load_policy
from reports.scan import ScanDocument
from tests.forkwatch.past import CREATED, DAY, A, B, Clock, batch, kinds, summary
from tests.forkwatch.samples import RELEASE
from tests.reports.samples import FORKS, scan

OVER = f"{B}: 5 bytes more, after 2,147,483,648, are over its budget of 2,147,483,648"
"""A gap, as older versions put it: the limit stands in the sentence alone."""


def first_tables(url: str) -> None:
    """A database as the first version left it: two forks, one with a verdict, three samples."""
    engine = create_engine(url)
    old = json.dumps(
        {
            "repo": A,
            "commit": "c" * 40,
            "files": [],
            "tags": ["x"],
            "claims": [],
            "license": None,
            "access": "open",
            "created_at": "2026-01-01T00:00:00Z",
            "last_modified": None,
            "downloads": 3,
            "likes": 1,
        }
    )
    at = "2026-01-02 00:00:00.000000"
    document = replace(scan(FORKS[0]), repo=A)
    shown = TypeAdapter(ScanDocument).dump_json(document).decode()
    with engine.begin() as connection:
        upgrade(connection, "0001")
        connection.execute(
            text(
                'INSERT INTO release (id, repo, "commit", root_digest, signer, public_key, signature, suite,'
                " manifest, added_at) VALUES (1, :r, :c, 'sha256:1', 's', 'PEM', 'model.sig', 'x', '{}', :at)"
            ),
            {"r": RELEASE, "c": "a" * 40, "at": at},
        )
        claims = json.dumps([{"base": RELEASE, "relation": "finetune", "statement": "s", "faithful": False}])
        for repo, gap in ((A, None), (B, OVER)):
            connection.execute(
                text(
                    "INSERT INTO candidate (release_id, repo, channels, claims, first_seen, last_seen, gap)"
                    " VALUES (1, :r, '[\"declared\"]', :claims, :at, :at, :gap)"
                ),
                {"r": repo, "claims": claims, "at": at, "gap": gap},
            )
        connection.execute(
            text(
                'INSERT INTO snapshot (id, repo, "commit", content, pinned_at)'
                " VALUES (7, :r, :c, :content, :at)"
            ),
            {"r": A, "c": "c" * 40, "content": old, "at": at},
        )
        connection.execute(
            text(
                'INSERT INTO snapshot (id, repo, "commit", content, pinned_at)'
                " VALUES (8, :r, :c, :content, :at)"
            ),
            {
                "r": RELEASE,
                "c": "a" * 40,
                "content": json.dumps({**json.loads(old), "repo": RELEASE, "object_id": "0123abcd"}),
                "at": at,
            },
        )
        connection.execute(
            text(
                "INSERT INTO result (snapshot_id, root_digest, stage, version, payload, created_at, seconds,"
                " requests, bytes_downloaded)"
                " VALUES (7, 'sha256:1', 'match', '1', '{\"value\": 1}', :at, 1, 2, 3)"
            ),
            {"at": at},
        )
        connection.execute(
            text(
                "INSERT INTO verdict (release_id, snapshot_id, repo, label, document, created_at)"
                " VALUES (1, 7, :r, 'authentic', :document, :at)"
            ),
            {"r": A, "document": shown, "at": at},
        )
        for number, when in enumerate(("2026-01-02 01:00:00", "2026-01-02 09:00:00", "2026-01-03 01:00:00")):
            connection.execute(
                text(
                    "INSERT INTO metric_sample (repo, sampled_at, downloads, likes) VALUES (:r, :at, :d, 0)"
                ),
                {"r": A, "at": when + ".000000", "d": number},
            )
    engine.dispose()


def test_a_database_of_the_first_version_keeps_everything(tmp_path: Path, clock: Clock) -> None:
    """Candidates, claims, gaps, verdicts, results and the last sample of each day survive the upgrade."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    first_tables(url)
    engine = open_engine(url)
    store = Store(engine, clock)

    first, second = store.candidates(1)
    assert (first.repo, first.gap, second.repo, second.gap) == (A, None, B, OVER)
    assert (first.over_budget, second.over_budget) == (None, 2 << 30)
    assert first.claims == (Claim(RELEASE, Relation.FINETUNE, "s"),)
    assert first.summary.commit == "c" * 40
    assert [(verdict.repo_id, verdict.document.repo) for verdict in store.verdicts(1)] == [(first.repo_id, A)]
    assert store.spent(7, "sha256:1").bytes_downloaded == 3
    (release,) = store.releases()
    assert load_policy(release.trust) == TrustPolicy(Trust((KeyTrust(b"PEM"),)))
    assert (release.status, release.signer, release.branch) == ("verified", "s", None)
    assert release.verified_at == release.added_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert release.object_id == "0123abcd"
    samples = store.histories([first.repo_id])[first.repo_id].samples
    assert [sample.downloads for sample in samples] == [1, 2]
    assert store.snapshot(A, "c" * 40) is not None

    # What had only a name is adopted by the repository seen under it, with what happened since.
    StoreMemory(store, 1).keep(batch(summary(commit="d")))
    assert kinds(store, 1) == {"1": [EventKind.NEW_COMMIT], f"name:{B}": []}
    engine.dispose()


def test_an_upgraded_name_that_is_another_repository_by_now_is_not_adopted(
    tmp_path: Path, clock: Clock
) -> None:
    """The creation date tells, where the first version kept no id."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    first_tables(url)
    engine = open_engine(url)
    store = Store(engine, clock)
    StoreMemory(store, 1).keep(batch(summary(created_at=CREATED + DAY)))

    assert kinds(store, 1) == {f"name:{A}": [EventKind.REREGISTERED], f"name:{B}": [], "1": []}
    (verdict,) = store.verdicts(1)
    known = store.candidate(1, A)
    assert known is not None
    assert known.repo_id != verdict.repo_id
    engine.dispose()


def test_what_is_up_to_date_is_opened_without_migrations_and_what_is_newer_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    open_engine(url).dispose()
    monkeypatch.setattr(engine_module, "upgrade", lambda _: pytest.fail("it was upgraded"))
    again = open_engine(url)
    with again.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    again.dispose()
    with pytest.raises(NewerDatabaseError):
        open_engine(url)
