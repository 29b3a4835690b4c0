"""Counts of how forks stand are those of the site, which loads every row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from crawler.interface import Commit, RepoId, RepoSummary
from forkwatch.daemon.talk import LogTalk
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.publish import site_view
from forkwatch.settings import Settings
from forkwatch.state import StateDir
from forkwatch.store.memory import StoreMemory
from forkwatch.store.standing import gaps, standing
from forkwatch.store.store import Store
from reports.scan import VerdictLabel
from tests.forkwatch.past import DAY, A, B, Clock, batch, summary
from tests.forkwatch.samples import SNAPSHOT
from tests.reports.samples import FORKS, scan


def _judge(store: Store, release: int, seen: RepoSummary, label: VerdictLabel, at: str) -> None:
    assert seen.commit is not None
    snapshot = replace(SNAPSHOT, repo=seen.repo, object_id=seen.object_id, commit=seen.commit)
    found = replace(scan(FORKS[0]), repo=seen.repo, commit=seen.commit, scanned_at=at)
    found = replace(found, verdict=replace(found.verdict, label=label))
    assert store.add_verdict(release, store.pin(snapshot), found)


def test_counts_are_those_of_the_site(store: Store, release: int, clock: Clock, tmp_path: Path) -> None:
    """Two verdicts about one fork, one that could not be read since, one that is gone, one whose name another
    has by now, and one that nobody has looked at."""
    memory, rest = StoreMemory(store, release), [RepoId(f"o/{name}") for name in ("gone", "new", "old")]
    rows = [summary(repo, str(number)) for number, repo in enumerate((A, B, *rest))]
    memory.keep(batch(*rows))
    _judge(store, release, rows[0], "benign-derivative", "2026-02-01T00:00:00+00:00")
    _judge(
        store,
        release,
        replace(rows[0], commit=Commit("d" * 40)),
        "safety-removed",
        "2026-02-02T00:00:00+00:00",
    )
    _judge(store, release, rows[1], "benign-derivative", "2026-02-03T00:00:00+00:00")
    _judge(store, release, rows[4], "unsafe-files", "2026-02-04T00:00:00+00:00")
    store.set_gap(release, store.candidates(release)[1].repo_id, "gated")
    clock.now += DAY
    memory.check([(rows[2], None)])
    memory.keep(batch(summary(rest[2], "another", created_at=clock.now + timedelta(days=1))))

    context = Context(None, store, StateDir(tmp_path), Settings(), clock, LogTalk())  # type: ignore[arg-type]
    (view,) = site_view(context).releases
    counted = standing(store, release)

    assert dict(counted.labels) == Counter(each.verdict.label for each in view.scans)
    assert counted.gaps == len(view.gaps) == 4
    assert dict(gaps(store, release)) == {gap.repo: gap.reason for gap in view.gaps}
    assert counted.last_result == max(each.scanned_at for each in view.scans)
