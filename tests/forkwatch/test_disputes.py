"""Disputes are appended, decided once, and shown; a withdrawn verdict stays and asserts nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from forkwatch.store.disputes import (
    DisputeError,
    NoVerdictError,
    Status,
    decide,
    disputes,
    judged,
    open_dispute,
    withdraw,
)
from forkwatch.store.store import Store
from tests.forkwatch.conftest import invoke
from tests.forkwatch.past import Clock
from tests.forkwatch.samples import FORK, SNAPSHOT
from tests.reports.samples import FORKS, scan

REMOVED = next(fork for fork in FORKS if fork.label == "safety-removed")


def _judge(store: Store, release: int, label: str = "safety-removed") -> int:
    """Give the fork a verdict; the repository's id."""
    document = replace(scan(REMOVED), repo=FORK)
    document = replace(document, verdict=replace(document.verdict, label=label))
    assert store.add_verdict(release, store.pin(SNAPSHOT), document)
    ((_, repo_id),) = judged(store, FORK)
    return repo_id


def test_a_dispute_is_decided_once(store: Store, release: int, clock: Clock) -> None:
    """What was said stays as it was said; a second decision is refused."""
    repo = _judge(store, release)
    opened = open_dispute(store, release, repo, statement="wrong", by="ann")
    clock.now += timedelta(days=1)
    decide(store, opened.number, Status.UPHELD, decision="measured again")
    with pytest.raises(DisputeError):
        decide(store, opened.number, Status.WITHDRAWN, decision="no")
    (shown,) = disputes(store, release)
    assert (shown.statement, shown.by, shown.status) == ("wrong", "ann", Status.UPHELD)
    assert (shown.decision, shown.decided_at) == ("measured again", clock.now)
    assert (shown.label, shown.current) == ("safety-removed", True)


def test_corrected_needs_a_correction(store: Store, release: int) -> None:
    """While the verdict is the newest, nothing has corrected it."""
    repo = _judge(store, release)
    opened = open_dispute(store, release, repo, statement="wrong", by="")
    with pytest.raises(DisputeError, match="still the newest"):
        decide(store, opened.number, Status.CORRECTED, decision="")
    _judge(store, release, "benign-derivative")
    assert decide(store, opened.number, Status.CORRECTED, decision="scanned again").current is False


def test_withdrawing_decides_open_disputes_and_twice_is_refused(store: Store, release: int) -> None:
    """A later verdict is not withdrawn with it."""
    repo = _judge(store, release)
    for statement in ("one", "two"):
        open_dispute(store, release, repo, statement=statement, by="")
    first = withdraw(store, release, repo, decision="the judge was wrong")
    with pytest.raises(DisputeError, match=f"D-{first.number}: the newest verdict was withdrawn on"):
        withdraw(store, release, repo, decision="again")
    assert [each.status for each in disputes(store, release)] == [Status.WITHDRAWN, Status.WITHDRAWN]
    assert [each.decision for each in disputes(store, release)] == ["the judge was wrong"] * 2
    _judge(store, release, "safety-degraded")
    assert {each.current for each in disputes(store, release)} == {False}
    alone = withdraw(store, release, repo, decision="this one too")
    assert (alone.statement, alone.by, alone.label, alone.current) == ("", "", "safety-degraded", True)
    assert len(disputes(store, release)) == 3


def test_without_a_verdict_there_is_nothing_to_dispute(store: Store, release: int) -> None:
    """Nor to withdraw, nor to decide."""
    store.pin(SNAPSHOT)
    assert judged(store, FORK) == ()
    with pytest.raises(NoVerdictError):
        open_dispute(store, release, 1, statement="wrong", by="")
    with pytest.raises(NoVerdictError):
        withdraw(store, release, 1, decision="wrong")
    with pytest.raises(DisputeError):
        decide(store, 1, Status.UPHELD, decision="wrong")


@pytest.fixture
def state(tmp_path: Path, store: Store, release: int) -> Path:
    """A state folder with one judged fork."""
    _judge(store, release)
    store.close()
    folder = tmp_path / "state"
    folder.mkdir()
    shutil.move(tmp_path / "test.db", folder / "forkwatch.db")
    return folder


def test_the_commands_and_what_the_site_shows(state: Path) -> None:
    """Open, refuse, decide, withdraw, list; hostile text is text; the advisory is withdrawn, not deleted."""
    reason = "\x1b[2J=1+1 <script>\u202e"
    opened = invoke(state, "dispute", "open", FORK.upper(), "--reason", reason, "--by", "ann\nX: y")
    assert opened.stdout.startswith("D-1: open; demo/fork@"), opened.stderr
    assert "\x1b" not in opened.output
    listed = json.loads(invoke(state, "dispute", "list", "--json").stdout)
    assert listed["schema"] == "forkwatch.disputes/1"
    assert listed["disputes"][0]["status"] == "open"
    assert "\x1b" not in listed["disputes"][0]["statement"]
    assert "D-1" in invoke(state, "dispute", "list").stdout
    for arguments, code in (
        (("open", "no/such", "--reason", "x"), 3),
        (("open", FORK, "--reason", " "), 2),
        (("open", "../etc/passwd", "--reason", "x"), 2),
        (("open", FORK, "--release", "no/such", "--reason", "x"), 2),
        (("resolve", "D-9", "--outcome", "upheld", "--reason", "x"), 2),
        (("resolve", "D-1", "--outcome", "corrected", "--reason", "x"), 2),
        (("resolve", "'; DROP", "--outcome", "upheld", "--reason", "x"), 2),
    ):
        assert invoke(state, "dispute", *arguments).exit_code == code, arguments
    assert invoke(state, "attest", "key").exit_code == 0
    advisory = _built(state, f"api/v1/forks/{FORK}.osv.json")
    assert (state / "site" / f"api/v1/forks/{FORK}.attestation.json").exists()
    assert "withdrawn" not in advisory
    assert advisory["details"].startswith("Disputed")
    done = invoke(state, "dispute", "withdraw", FORK, "--reason", "the judge was wrong")
    assert done.stdout.startswith("D-1: withdrawn; demo/fork@")
    again = invoke(state, "dispute", "withdraw", FORK, "--reason", "another")
    assert (again.exit_code, again.stdout, "D-1: the newest verdict was withdrawn" in again.stderr) == (
        2,
        "",
        True,
    )
    advisory = _built(state, f"api/v1/forks/{FORK}.osv.json")
    assert advisory["withdrawn"]
    assert advisory["details"].startswith("Withdrawn. the judge was wrong")
    assert not (state / "site" / f"api/v1/forks/{FORK}.moderation.md").exists()
    assert not (state / "site" / f"api/v1/forks/{FORK}.attestation.json").exists()
    assert json.loads((state / "site" / "verdicts.json").read_text())["releases"][0]["verdicts"][0][
        "withdrawn_at"
    ]
    assert len(json.loads(invoke(state, "dispute", "list", "--json").stdout)["disputes"]) == 1


def _built(state: Path, path: str) -> dict:
    built = invoke(state, "report", "build")
    assert built.exit_code == 0, built.stderr
    found: dict = json.loads((state / "site" / path).read_text())
    return found
