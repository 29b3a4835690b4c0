"""The site after changes in the store: what an incremental build leaves is what a full one gives."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import forkwatch.pipeline.publish as publishing
import reports.build as building
from benchmarks.site_store import FIRST, NOW, document, fill
from crawler.interface import RepoId, RepoSummary
from forkwatch.cli.session import session
from forkwatch.pipeline.context import Context, Silent
from forkwatch.pipeline.publish import publish
from forkwatch.pipeline.stored import row_format
from forkwatch.state import StateDir
from forkwatch.store.disputes import Status, decide, open_dispute, withdraw
from forkwatch.store.engine import open_engine
from forkwatch.store.models import Release
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


def built(
    state: Path,
    out: Path,
    change: Callable[[Context], Context] = lambda same: same,
    *,
    may_fork: bool = False,
) -> Path:
    """The site at `out`."""
    with session(state=StateDir(state), talk=Silent()) as context:
        publish(change(context), out, may_fork=may_fork)
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


def another_finding(store: Store, now: list[datetime]) -> None:
    """The same verdict for another reason."""
    store.add_verdict(1, 3, replace(document(2), findings=document(5).findings))
    now[0] += timedelta(hours=1)


def another_evaluation(store: Store, now: list[datetime]) -> None:
    """What a fork that was measured refuses now: forecasts about all others are made of it."""
    measured = document(10, seed=3)
    store.add_verdict(1, 11, replace(measured, repo=document(10).repo, commit=document(10).commit))
    now[0] += timedelta(hours=1)


def weeks_of_downloads(store: Store, now: list[datetime]) -> None:
    """A fork is seen again and again, and nothing else happens."""
    for week in range(1, 4):
        now[0] += timedelta(days=7)
        seen = summary(7, downloads=1_000 * week**2)
        with store.repos(seen) as repos:
            repos.see(seen)


def decided(store: Store, now: list[datetime]) -> None:
    """A dispute is opened and decided."""
    dispute = open_dispute(store, 1, 5, statement="It is not so.", by="a")
    decide(store, dispute.number, Status.UPHELD, decision="It is.", by="b")
    now[0] += timedelta(hours=1)


def time_passes(store: Store, now: list[datetime]) -> None:
    """One fork is examined two months later: what is known of the others is old by then."""
    now[0] += timedelta(days=60)
    scan, at = document(12), now[0].isoformat(timespec="seconds")
    store.add_verdict(
        1, 13, replace(scan, scanned_at=at, verdict=replace(scan.verdict, summary="As before."))
    )


def another_release(store: Store, now: list[datetime]) -> None:
    """A fork is compared with a second release as well."""
    one = store.releases()[0]
    values = {name: getattr(one, name) for name in type(one).model_fields if name != "id"}
    two = store.add_release(Release(**{**values, "repo": "demo/second", "root_digest": "sha256:" + "5" * 64}))
    store.add_verdict(two.id or 0, 1, replace(document(0), release=f"demo/second@{one.commit}"))
    now[0] += timedelta(hours=1)


def gone(store: Store, now: list[datetime]) -> None:
    """A fork is removed from the Hub, and another has its name."""
    store.lose(summary(20))
    now[0] += timedelta(days=1)
    taken = summary(21, repo=RepoId(document(20).repo))
    with store.repos(taken) as repos:
        repos.see(taken)


@pytest.mark.parametrize("shared", [False, True])
def test_time_evaluations_and_releases_end_as_a_full_build(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Each changes the site, and nothing that was kept outlives it; also where two processes render."""
    monkeypatch.setattr(building, "SHARED_FROM", 1)
    monkeypatch.setattr(building, "can_share", lambda: True)
    now = [NOW]
    store = Store(open_engine(f"sqlite:///{state / 'forkwatch.db'}"), lambda: now[0])
    pieces, site = state / "cache" / "pieces.db", built(state, tmp_path / "site", may_fork=shared)
    said = content(site)
    for happens in (
        another_finding,
        another_evaluation,
        weeks_of_downloads,
        decided,
        time_passes,
        another_release,
        gone,
    ):
        happens(store, now)
        before, said = said, content(built(state, site, may_fork=shared))
        pieces.rename(tmp_path / "pieces.db")
        whole = content(built(state, tmp_path / happens.__name__))
        (tmp_path / "pieces.db").replace(pieces)
        assert said == whole, happens.__name__
        assert said != before, happens.__name__
    store.close()
    assert b"old scan" in (site / "forks" / document(3).repo / "index.html").read_bytes()


def content(site: Path) -> dict[str, bytes]:
    """All of it but digests, of which a site keeps those of earlier weeks."""
    found = {path: data for path, data in tree(site).items() if not path.startswith("digest/")}
    lines = found[".forkwatch-site"].split(b"\n")[1:]
    found[".forkwatch-site"] = b"\n".join(line for line in lines if b"\tdigest/" not in line)
    return found


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
