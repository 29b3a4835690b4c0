"""`forkwatch crawl` and `forkwatch tree`, as a user runs them, against a hub over real sockets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from forkwatch.cli.crawl import moment
from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.demo.hub.wire import Reply, Request
from forkwatch.errors import SettingsError
from reports.tree_json import json_schema
from tests.forkwatch.conftest import invoke
from tests.forkwatch.family import RELEASE, Family, change, populate, publish_release

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


class CountingHub(LoopbackHub):
    """Kills a process when its n-th request arrives; the answer then reaches nobody. May list nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.empty = False
        self.victim: tuple[int, subprocess.Popen[bytes]] | None = None

    def _answer_hub(self, request: Request) -> Reply:
        self.count += 1
        if self.victim is not None and self.count == self.victim[0]:
            self.victim[1].send_signal(signal.SIGKILL)
        if self.empty and request.path == "/api/models":
            return Reply(200, (("Content-Type", "application/json"),), b"[]")
        return super()._answer_hub(request)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    """The release is guarded; nothing was crawled yet."""
    hub = CountingHub()
    key = publish_release(hub, tmp_path / "release")
    with hub:
        made = Family(hub, tmp_path / "state")
        populate(made)
        added = made.run("release", "add", RELEASE, "--public-key", str(key))
        assert added.exit_code == 0, added.stderr
        yield made


def crawl(family: Family, *arguments: str) -> dict[str, Any]:
    """The document of a crawl that must succeed."""
    done = family.run("crawl", "--json", *arguments)
    assert done.exit_code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def names(document: dict[str, Any]) -> set[str]:
    """Candidates that are there."""
    return {found["repo"] for found in document["candidates"] if found["gone_at"] is None}


def test_every_channel_finds_its_fork(family: Family) -> None:
    """Declared, its quantisation, name, statement; no stranger; counts by channel add up."""
    document = crawl(family)

    assert names(document) == {
        "ann/tuned",
        "bob/abl",
        "bob/abl-GGUF",
        "cyd/Guarded-1B-copy",
        "dan/heretical",
        "eve/gated",
    }
    channels = [channel for found in document["candidates"] for channel in found["channels"]]
    assert document["channels"] == {channel: channels.count(channel) for channel in document["channels"]}
    assert set(document["channels"]) == set(channels)
    assert document["new"] == 6
    assert (document["complete"], document["left_out"], document["events"]) == (True, [], [])
    assert document["cost"]["api"] > 0


def test_a_second_crawl_finds_nothing_new(family: Family) -> None:
    """Known candidates are listed, none is new, nothing has happened, and it costs fewer calls."""
    first, second = crawl(family), crawl(family)

    assert names(second) == names(first)
    assert (second["new"], second["events"]) == (0, [])
    assert second["cost"]["requests"] < first["cost"]["requests"]


def test_what_happened_since_is_told(family: Family) -> None:
    """A new commit, a rename, a deletion, an opening and a name registered again are events, each once."""
    crawl(family)
    change(family)

    document = crawl(family)

    assert {(event["repo"], event["kind"]) for event in document["events"]} == {
        ("ann/tuned", "new-commit"),
        ("bob/abl", "renamed"),
        ("cyd/Guarded-1B-copy", "deleted"),
        ("dan/heretical", "re-registered"),
        ("eve/gated", "opened"),
    }
    assert len(document["events"]) == 5
    assert sorted(document["gone"]) == ["cyd/Guarded-1B-copy", "dan/heretical"]
    assert {found["repo"] for found in document["candidates"] if found["new"]} == {"dan/heretical", "fay/new"}
    assert crawl(family)["events"] == []


def test_a_deleted_fork_that_is_there_again(family: Family) -> None:
    """Hidden and shown again, it is found again, with both events."""
    crawl(family)
    family.hub.set_access("ann/tuned", private=True)
    hidden = crawl(family)
    family.hub.set_access("ann/tuned", private=False)
    family.hub.commit("ann/tuned", {"README.md": b"again"}, replace=False)
    shown = crawl(family)

    assert "ann/tuned" not in names(hidden)
    assert [event["kind"] for event in hidden["events"]] == ["deleted"]
    assert "ann/tuned" in names(shown)
    assert {event["kind"] for event in shown["events"]} == {"reappeared", "new-commit"}


def test_one_channel_only(family: Family) -> None:
    """`--channel name` walks no listing of tags, and looks at no known fork; every channel sees its rows."""
    document = crawl(family, "--channel", "name")

    assert set(document["channels"]) == {"name", "shape"}
    assert names(document) == {"cyd/Guarded-1B-copy"}
    assert document["looked_at"] == 0
    queries = [dict(request.query) for request in family.hub.requests if request.route == "list"]
    assert queries
    assert not [query for query in queries if "heretic" in query.get("filter", "")]


def test_since_looks_at_recent_rows_only(family: Family) -> None:
    """With a date after every repository there is nothing to find, and that is said with 3."""
    done = family.run("crawl", "--since", "2026-06-01")

    assert done.exit_code == 3
    assert "no candidate was found" in done.stderr


def test_progress_is_on_stderr(family: Family) -> None:
    """Rows, candidates and calls so far, by listing; stdout is data."""
    done = family.run("crawl", "--json")

    json.loads(done.stdout)
    line = next(line for line in done.stderr.splitlines() if line.startswith("all listings:"))
    assert "rows, 6 candidates, " in line
    assert "calls so far" in line
    assert [line for line in done.stderr.splitlines() if line.startswith("declared:")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--since", "yesterday"), "'yesterday' is no date"),
        (("--since", "2999-01-01"), "in the future"),
        (("--since", "0001-01-01T00:00+02:00"), "is no date"),
        (("--channel", "gossip"), "no channel is called 'gossip'"),
        (("--channel", "direct"), "no channel is called 'direct'"),
        (("--since", "\x1b[2J"), "is no date"),
    ],
)
def test_bad_arguments_are_one_clear_line(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2, before anything is opened."""
    done = invoke(tmp_path / "state", "crawl", *arguments)

    lines = [line for line in done.stderr.splitlines() if line.startswith("forkwatch:")]
    assert done.exit_code == 2
    assert len(lines) == 1
    assert says in lines[0]
    assert "\x1b" not in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("12h", NOW - timedelta(hours=12)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T10:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-11-01T10:00:00+02:00", datetime(2026, 11, 1, 8, tzinfo=UTC)),
    ],
)
def test_since_as_people_write_it(text: str, expected: datetime) -> None:
    """A date, a time with or without its offset, or a span."""
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7 d", "2026-13-01", "٧d"])
def test_since_refuses_the_rest(text: str) -> None:
    """What is no date is not guessed."""
    with pytest.raises(SettingsError):
        moment(text, NOW)


def test_a_channel_of_the_settings_that_does_not_exist(family: Family) -> None:
    """A misspelt channel in the settings is a usage error, too."""
    assert family.run("crawl", FORKWATCH_CRAWL__CHANNELS='["gossip"]').exit_code == 2
    none = family.run("crawl", "--channel", "tag", FORKWATCH_CRAWL__TAGS="[]")
    assert none.exit_code == 2
    assert "no channel is left" in none.stderr


def test_what_a_bound_cut_off_is_said(family: Family) -> None:
    """A crawl whose budget of cards is spent is not complete, and the next one goes on."""
    document = json.loads(family.run("crawl", "--json", FORKWATCH_CRAWL__CARDS="0").stdout)

    assert document["complete"] is False
    assert [reason for reason in document["left_out"] if "cards were not read" in reason]
    assert "dan/heretical" not in names(document)
    assert "dan/heretical" in names(crawl(family))


@pytest.mark.parametrize("command", [("crawl",), ("run", "--once")])
def test_a_hub_that_lists_nothing_is_no_success(family: Family, command: tuple[str, ...]) -> None:
    """Empty is not OK: what is known from before does not hide that nothing was seen."""
    crawl(family)
    assert isinstance(family.hub, CountingHub)
    family.hub.empty = True
    done = family.run(*command)

    assert done.exit_code == 3
    assert "the Hub listed no repository at all" in done.stderr


def test_nothing_since_an_hour_ago_is_a_success(family: Family) -> None:
    """With `--since`, nothing to list is what a quiet hour looks like."""
    crawl(family)
    assert crawl(family, "--since", "1h")["rows"] == 0


def test_a_hub_that_fails_keeps_what_was_found(family: Family) -> None:
    """Exit code 4 in one line, and the listings that were finished are not walked again."""
    family.hub.inject(Fault("list", "500", times=0))
    crawl(family, "--channel", "declared")
    family.hub.inject(Fault("list", "500", times=-1))
    failed = family.run("crawl")
    family.hub.clear_faults()

    assert failed.exit_code == 4
    assert len([line for line in failed.stderr.splitlines() if line.startswith("forkwatch:")]) == 1
    assert "ann/tuned" in names(crawl(family))


def test_a_fork_that_cannot_be_looked_at_stops_no_crawl(family: Family) -> None:
    """It is said, it keeps its candidate, the other forks are looked at, and it is not first again."""
    crawl(family)
    family.hub.inject(Fault("info", "500", repo="cyd/Guarded-1B-copy", times=-1))
    family.hub.set_access("dan/heretical", private=True)
    document = crawl(family)

    assert document["complete"] is False
    assert [reason for reason in document["left_out"] if "cyd/Guarded-1B-copy could not be" in reason]
    assert "cyd/Guarded-1B-copy" in names(document)
    assert document["gone"] == ["dan/heretical"]
    with sqlite3.connect(family.state / "forkwatch.db") as connection:
        query = "SELECT name FROM repo WHERE last_checked IS NOT NULL"
        looked = {name for (name,) in connection.execute(query)}
    connection.close()
    assert {"cyd/Guarded-1B-copy", "dan/heretical"} <= looked


def test_channel_left_out_of_the_settings_for_a_while_loses_no_fork(family: Family) -> None:
    """Its listings are not walked, but what the feed shows goes past it all the same."""
    crawl(family)
    family.hub.create_repo("gus/quiet-child", created_at=datetime(2026, 3, 1, tzinfo=UTC))
    family.hub.commit("gus/quiet-child", {"README.md": b"---\nbase_model: bob/abl-GGUF\n---\n"})
    family.hub.create_repo("zed/noise", created_at=datetime(2026, 3, 3, tzinfo=UTC))  # beyond any overlap
    assert family.run("crawl", FORKWATCH_CRAWL__CHANNELS='["name"]').exit_code == 0
    assert "gus/quiet-child" in names(crawl(family))


# --- kill -9 ---

_OF_REPO = "JOIN repo r ON r.id = t.repo_id"
_CONTENT = {
    "candidate": f"SELECT r.identity, t.channels, t.claims, t.gap FROM candidate t {_OF_REPO}",
    "repo": "SELECT identity, name, summary, gone_at IS NULL FROM repo",
    "event": f"SELECT r.identity, t.name, t.kind, t.before, t.after FROM event t {_OF_REPO}",
    "watermark": "SELECT listing, newest FROM watermark",
    "reading": 'SELECT repo, "commit", claims FROM reading',
    "metric_sample": f"SELECT r.identity, t.downloads, t.likes FROM metric_sample t {_OF_REPO}",
}
"""All that a crawl keeps, without the times at which it was noticed and the numbers of rows."""


def content(state: Path) -> dict[str, list[tuple[object, ...]]]:
    """What the database holds."""
    with sqlite3.connect(state / "forkwatch.db") as connection:
        found = {name: sorted(connection.execute(query), key=repr) for name, query in _CONTENT.items()}
    connection.close()
    return found


def start_crawl(family: Family, state: Path) -> subprocess.Popen[bytes]:
    """A real process."""
    environment = {**os.environ, **family.environment(), "FORKWATCH_STATE_DIR": str(state), "HF_TOKEN": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "forkwatch", "crawl"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_killed_anywhere_and_started_again_the_state_is_the_same(family: Family, tmp_path: Path) -> None:
    """SIGKILL at several requests of a first crawl, and of one that has every event to notice."""
    hub = family.hub
    assert isinstance(hub, CountingHub)
    for turn in range(2):
        before = tmp_path / f"before-{turn}"
        shutil.copytree(family.state, before)
        hub.count, hub.victim = 0, None
        assert start_crawl(family, family.state).wait(120) == 0
        whole, requests = content(family.state), hub.count
        assert requests > 10
        for at in (1, requests // 3, 2 * requests // 3, requests):
            state = tmp_path / f"killed-{turn}-{at}"
            shutil.copytree(before, state)
            hub.count = 0
            process = start_crawl(family, state)
            hub.victim = (at, process)
            assert process.wait(120) == -signal.SIGKILL
            hub.victim = None
            assert start_crawl(family, state).wait(120) == 0
            assert content(state) == whole, f"killed at request {at} of {requests}"
        if turn == 0:
            change(family)
    assert len(whole["event"]) == 5


# --- tree ---


def test_tree_of_a_crawled_family(family: Family) -> None:
    """Claims are said to be claims; the quantisation hangs under its base, by its new name as well."""
    crawl(family)
    lines = family.run("tree", RELEASE).stdout.splitlines()
    assert lines[0] == RELEASE
    place = lines.index("  bob/abl [claimed finetune] not examined")
    assert lines[place + 1] == "    bob/abl-GGUF [claimed quantized] not examined"

    change(family)
    crawl(family)
    document = json.loads(family.run("tree", "--json").stdout)
    jsonschema.validate(document, json_schema())
    edges = {(edge["child"], edge["base"]) for edge in document["edges"]}
    assert ("bob/abl-GGUF", "bob/abliterated") in edges
    assert {edge["kind"] for edge in document["edges"]} == {"claimed"}


def test_tree_without_a_family(family: Family) -> None:
    """An unknown release is a usage error, one without candidates is nothing to examine."""
    assert family.run("tree", "lab/unknown").exit_code == 2
    assert family.run("tree", RELEASE).exit_code == 3
