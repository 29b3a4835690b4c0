"""The site after changes in the store: what an incremental build leaves is what a full one gives."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import forkwatch.pipeline.publish as publishing
from benchmarks.site_store import FIRST, NOW, document, fill
from crawler.interface import RepoId, RepoSummary
from forkwatch.cli.session import session
from forkwatch.pipeline.context import Context, Silent
from forkwatch.pipeline.publish import publish
from forkwatch.pipeline.stored import row_format
from forkwatch.state import StateDir
from forkwatch.store.disputes import open_dispute, withdraw
from forkwatch.store.engine import open_engine
from forkwatch.store.store import Store
from forkwatch.store.verdict_log import creation_times, index_heads, index_rows, listed_candidates
from reports.manifest import read_manifest
from tests.reports.html_tools import tree

FORKS = 24


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose store holds forks of all kinds."""
    folder = tmp_path / "state"
    folder.mkdir()
    fill(folder, FORKS)
    return folder


def summary(number: int, **seen: object) -> RepoSummary:
    """What the Hub says of a fork."""
    scan = document(number)
    known = RepoSummary(
        repo=RepoId(scan.repo), object_id=f"{number:024x}", commit=scan.commit, created_at=FIRST
    )
    return replace(known, **seen)  # type: ignore[arg-type]  # fields by name


def happen(store: Store, rng: random.Random) -> None:
    """Something that may happen to a fork between two builds."""
    number = rng.randrange(FORKS)
    scan, id_ = document(number), number + 1
    what = rng.choice(("verdict", "rename", "lose", "figures", "gap", "dispute", "withdraw"))
    match what:
        case "verdict":
            label = rng.choice(("inconclusive", "safety-removed", "benign-derivative"))
            verdict = replace(scan.verdict, label=label, summary=f"Said {rng.random()}.")
            store.add_verdict(1, id_, replace(scan, verdict=verdict))
        case "rename" | "figures":
            name = f"renamed/fork-{rng.randrange(4)}" if what == "rename" else scan.repo
            seen = summary(number, repo=RepoId(name), downloads=rng.randrange(9_999))
            with store.repos(seen) as repos:
                repos.see(seen)
        case "lose":
            store.lose(summary(number))
        case "gap":
            store.set_gap(1, id_, rng.choice((None, "gated", "too large")))
        case "dispute":
            open_dispute(store, 1, id_, statement="It is not so.", by="a")
        case _:
            withdraw(store, 1, id_, decision="A mistake.", by="b")


def built(state: Path, out: Path, change: Callable[[Context], Context] = lambda same: same) -> Path:
    """The site at `out`."""
    with session(state=StateDir(state), talk=Silent()) as context:
        publish(change(context), out)
    return out


def test_whatever_happens_in_the_store_ends_as_a_full_build(state: Path, tmp_path: Path) -> None:
    """Verdicts, names, figures, gaps, disputes, forks that go: byte for byte, the manifest included."""
    rng, now = random.Random(4), [NOW]
    store = Store(open_engine(f"sqlite:///{state / 'forkwatch.db'}"), lambda: now[0])
    withdraw(store, 1, 1, decision="Now: digests of other weeks would be kept.", by="b")
    out = built(state, tmp_path / "site")
    for turn in range(30):
        now[0] += timedelta(hours=2)
        happen(store, rng)
        if turn % 6 == 5:
            (state / "cache" / "pieces.db").rename(tmp_path / "pieces.db")
            whole = tree(built(state, tmp_path / f"whole-{turn}"))
            (tmp_path / "pieces.db").replace(state / "cache" / "pieces.db")
            assert tree(built(state, out)) == whole
        elif turn % 2:
            built(state, out)
    store.close()


def test_settings_and_versions_reach_every_page(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of forks as well, which are otherwise not looked at again."""

    def said(context: Context) -> Context:
        site = context.settings.site.model_copy(update={"contact": "disputes@example.org"})
        return replace(context, settings=context.settings.model_copy(update={"site": site}))

    out = built(state, tmp_path / "site")
    before = tree(out)
    assert tree(built(state, out)) == before
    after = tree(built(state, out, said))
    monkeypatch.setattr(publishing, "__version__", "9.9.9")
    newer = tree(built(state, out, said))
    pages = [path for path in before if path.startswith("forks/") and path.endswith(".html")]
    assert len(pages) == FORKS
    for path in pages:
        assert b"disputes@example.org" not in before[path]
        assert b"disputes@example.org" in after[path]
        assert b"9.9.9" in newer[path]
    assert newer == tree(built(state, tmp_path / "whole", said))


def test_one_verdict_leaves_the_files_of_other_forks(state: Path, tmp_path: Path) -> None:
    """Same inode and time, and their lines of the manifest are the same text."""
    out = built(state, tmp_path / "site")
    old, lines = read_manifest(out), set((out / ".forkwatch-site").read_text().splitlines())
    stat = {path: (out / path).stat() for path in old.files}  # type: ignore[union-attr]  # just built
    store = Store(open_engine(f"sqlite:///{state / 'forkwatch.db'}"), lambda: NOW)
    scan = document(9)
    store.add_verdict(1, 10, replace(scan, verdict=replace(scan.verdict, label="inconclusive")))
    store.close()
    built(state, out)
    kept = [path for path in stat if path.startswith(("forks/", "api/v1/forks/")) and scan.repo not in path]
    assert len(kept) > 3 * FORKS
    for path in kept:
        assert (out / path).stat().st_ino == stat[path].st_ino
        assert (out / path).stat().st_mtime_ns == stat[path].st_mtime_ns
    assert len(lines & set((out / ".forkwatch-site").read_text().splitlines())) >= FORKS - 1


def test_a_row_is_two_lines_and_candidates_are_the_stores(state: Path, tmp_path: Path) -> None:
    """What is read of every fork is what is read of one."""
    built(state, tmp_path / "site")
    store = Store(open_engine(f"sqlite:///{state / 'forkwatch.db'}"), lambda: NOW)
    ids = range(1, FORKS + 1)
    heads, rows = index_heads(store, ids, row_format()), index_rows(store, ids, row_format())
    assert {id_: text.partition("\n")[0] for id_, text in rows.items()} == heads
    assert len(heads) == FORKS
    known = store.candidates(1)
    listed = listed_candidates(store, 1)
    fields = ("repo_id", "repo", "channels", "claims", "gone_at", "gap")
    assert [[getattr(each, name) for name in fields] for each in listed] == [
        [getattr(each, name) for name in fields] for each in known
    ]
    assert creation_times(store, 1) == {each.repo_id: each.summary.created_at for each in known}
    store.close()
