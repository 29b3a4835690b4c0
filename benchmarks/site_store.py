"""A store of very many forks for `bench_site`: they differ in kind, numbers, topics and findings."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.scan import ScanDocument

NOW = datetime(2026, 11, 30, tzinfo=UTC)
FIRST = NOW - timedelta(days=90)
RELEASE = "demo/smollm2-135m-guarded"


def document(number: int, seed: int = 0) -> ScanDocument:
    """One fork; any two differ."""
    from tests.reports import sample_forks, sample_scans

    rng = random.Random(f"{seed}:{number}")
    models = [fork for fork in sample_forks.FORKS if (fork.refusal is not None) == (number % 10 < 3)]
    base = rng.choice(models)
    refusal = None if base.refusal is None else round(rng.random(), 3)
    fork = replace(
        base,
        name=f"{rng.choice(WORDS)}-{number % 977}/{rng.choice(WORDS)}-{rng.choice(WORDS)}-{number}",
        refusal=refusal,
        downloads=int(10 ** rng.uniform(0, 5)),
        day=rng.randint(6, 28),
    )
    scan = sample_scans.scan(fork, number + 1)
    if scan.heatmap is not None:
        scale = rng.uniform(0.3, 3)
        rows = tuple(tuple(v and round(v * scale, 6) for v in row) for row in scan.heatmap.values)
        scan = replace(scan, heatmap=replace(scan.heatmap, values=rows))
    return scan


WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jade", "karst")


def fill(folder: Path, forks: int) -> None:
    """A state folder with a store of this many forks."""
    import sqlalchemy as sa
    from sqlmodel import Session

    from forkwatch.store.engine import open_engine

    engine = open_engine(f"sqlite:///{folder / 'forkwatch.db'}")
    rng = random.Random(8)
    with Session(engine) as session:
        session.add(_release())
        session.commit()
        for start in range(0, forks, 500):
            kinds: tuple[list[Any], ...] = ([], [], [])
            for number in range(start, min(start + 500, forks)):
                for rows, row in _rows(number, rng):
                    kinds[rows].append(row)
            for found in kinds:
                session.add_all(found)
                session.flush()
            session.commit()
    with engine.connect() as connection:
        connection.execute(sa.text("ANALYZE"))
        connection.commit()
    engine.dispose()


def _release() -> Any:
    from forkwatch.store import models
    from tests.reports.sample_scans import ORIGINAL, RELEASE_COMMIT

    return models.Release(
        id=1,
        repo=RELEASE,
        commit=RELEASE_COMMIT,
        signer=ORIGINAL.signer,
        status="verified",
        root_digest=ORIGINAL.root_digest,
        manifest={"root_digest": ORIGINAL.root_digest, "files": []},
        license="apache-2.0",
        added_at=FIRST,
        verified_at=FIRST,
        trust={},
        signature="",
        suite="",
    )


def _rows(number: int, rng: random.Random) -> Iterator[tuple[int, Any]]:
    """Of one fork: when a row is to be written, since others refer to it, and the row."""
    from crawler.interface import Channel, Claim, RepoId, RepoSummary
    from forkwatch.store import models
    from forkwatch.store.values import dump_channels, dump_claims, dump_summary
    from reports.document import to_json

    scan, id_, seen = document(number), number + 1, FIRST + timedelta(minutes=number * 12)
    summary = RepoSummary(repo=RepoId(scan.repo), object_id=f"{number:024x}", commit=scan.commit)
    claim = Claim(RepoId(RELEASE), None, f"base_model: {RELEASE}", faithful=False)
    yield (
        0,
        models.RepoRow(
            id=id_,
            identity=f"{number:024x}",
            name=scan.repo,
            name_key=scan.repo.lower(),
            summary=dump_summary(summary),
            first_seen=seen,
            last_seen=NOW,
        ),
    )
    yield (
        1,
        models.SnapshotRow(
            id=id_, repo_id=id_, repo=scan.repo, commit=scan.commit, content={}, pinned_at=seen
        ),
    )
    yield (
        2,
        models.CandidateRow(
            release_id=1,
            repo_id=id_,
            channels=dump_channels([Channel.DECLARED]),
            claims=dump_claims([claim]),
            first_seen=seen,
            last_seen=NOW,
        ),
    )
    verdict = models.VerdictRow(
        id=id_,
        release_id=1,
        snapshot_id=id_,
        repo_id=id_,
        repo=scan.repo,
        label=scan.verdict.label,
        document=json.loads(to_json(scan)),
        created_at=seen,
    )
    yield 2, verdict
    for day in sorted(rng.sample(range(1, 29), 6)):
        at, downloads = datetime(2026, 11, day, tzinfo=UTC), int(scan.hub.downloads * day / 28)
        sample = models.MetricSample(
            repo_id=id_, day=date(2026, 11, day), sampled_at=at, downloads=downloads, likes=day
        )
        yield 2, sample


def change(folder: Path, number: int) -> None:
    """A new verdict about one fork, that is evaluated neither before nor after."""
    from forkwatch.store.engine import open_engine
    from forkwatch.store.store import Store

    store = Store(
        open_engine(f"sqlite:///{folder / 'forkwatch.db'}"), lambda: NOW + timedelta(minutes=number)
    )
    old = document(number)
    verdict = replace(old.verdict, summary="Looked at again: as before.", label="inconclusive")
    store.add_verdict(1, number + 1, replace(old, verdict=verdict, scanned_at="2026-11-30T12:00:00Z"))
    store.close()
