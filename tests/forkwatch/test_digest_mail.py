"""The digest by mail, to a real SMTP server: TLS only, once to each, recognisable if twice."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiosmtpd.controller import Controller

from forkwatch.cli.session import session
from forkwatch.pipeline.context import Silent
from forkwatch.pipeline.mailing import last_week
from forkwatch.pipeline.tasks import SendingError, write_digest
from forkwatch.store.engine import open_engine
from forkwatch.store.mailing import Claim, Draft, Refused, claim, note_failed, note_sent
from forkwatch.store.store import Store
from tests.forkwatch.conftest import guarded, invoke
from tests.forkwatch.mail_server import Inbox, MailServer, localhost_tls, taking
from tests.forkwatch.past import Clock
from tests.forkwatch.samples import FORK, RELEASE, SNAPSHOT
from tests.reports.samples import FORKS, scan

WEEK = "2026-W05"
"""Of `Clock`: over, whenever this runs."""

LEASE = timedelta(minutes=10)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return localhost_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def server(inbox: Inbox, tls: SimpleNamespace) -> Iterator[Controller]:
    """STARTTLS and a login are required."""
    running = MailServer(
        inbox,
        hostname="127.0.0.1",
        port=0,
        tls_context=tls.context,
        require_starttls=True,
        auth_required=True,
        authenticator=inbox.login,
    )
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with one fork, whose safety was removed in that week."""
    database = tmp_path_factory.mktemp("filled") / "forkwatch.db"
    store = Store(open_engine(f"sqlite:///{database}"), Clock())
    release = store.add_release(guarded(RELEASE, signer=""))
    removed = next(fork for fork in FORKS if fork.label == "safety-removed")
    store.add_verdict(release.id or 0, store.pin(SNAPSHOT), replace(scan(removed), repo=FORK))
    store.close()
    return database


@pytest.fixture
def state(tmp_path: Path, filled: Path) -> Path:
    """A state folder of its own."""
    folder = tmp_path / "state"
    folder.mkdir()
    shutil.copy(filled, folder)
    return folder


def _config(tmp_path: Path, server: Controller | None, tls: SimpleNamespace, **changes: str) -> Path:
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    values = {
        "host": '"127.0.0.1"',
        "port": str(9 if server is None else server.port),
        "ca_file": f'"{tls.root}"',
        "user": '"forkwatch"',
        "password_file": f'"{password}"',
        "sender": '"forkwatch@example.org"',
        "recipients": '["one@example.org", "Two@example.org", "ONE@example.org"]',
        "attempts": "2",
        "pause_seconds": "0.01",
        "timeout_seconds": "20",
        **changes,
    }
    config = tmp_path / "forkwatch.toml"
    lines = "".join(f"{name} = {value}\n" for name, value in values.items())
    config.write_text(f'[mail]\n{lines}[site]\nbase_url = "https://example.org/forks/"\n')
    return config


def _send(state: Path, config: Path, *more: str):
    return invoke(state, "digest", "--week", WEEK, "--send", *more, FORKWATCH_CONFIG=str(config))


def test_each_recipient_gets_it_once(tmp_path, state, server, inbox, tls) -> None:
    """Over STARTTLS, after a login, as text and HTML; a second run sends nothing."""
    config = _config(tmp_path, server, tls)
    done = _send(state, config, "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.stderr
    assert [each.rcpt_tos for each in inbox.taken] == [["one@example.org"], ["two@example.org"]]
    first, second = inbox.mails()
    assert first["Subject"] == "forkwatch 2026-W05: 1 fork needs a decision"
    assert (first["From"], first["To"]) == ("forkwatch <forkwatch@example.org>", "one@example.org")
    assert first["Message-ID"] != second["Message-ID"]
    assert [part.get_content_type() for part in first.iter_parts()] == ["text/plain", "text/html"]
    assert str(FORK) in first.get_body(("plain",)).get_content()
    assert f"https://example.org/forks/forks/{FORK}" in first.get_body(("html",)).get_content()
    assert not first.defects
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["2026-W05.eml", "2026-W05.html", "2026-W05.txt"]
    again = _send(state, config)
    assert again.exit_code == 0
    assert again.stderr.count("sent before") == 2
    assert len(inbox.taken) == 2
    assert set(inbox.users) == {b"forkwatch"}


def test_a_busy_server_is_asked_again_and_a_refusal_is_not_final(tmp_path, state, server, inbox, tls) -> None:
    """421, then taken; 554 fails at once, and the next run tries again."""
    inbox.answers = [lambda *_: "451 later", taking(inbox), lambda *_: "554 no"]
    config = _config(tmp_path, server, tls)
    failed = _send(state, config)
    assert failed.exit_code == 4
    assert "one@example.org: sent" in failed.stderr
    assert "two@example.org: failed (127.0.0.1 answered 554 no)" in failed.stderr
    fixed = _send(state, config)
    assert fixed.exit_code == 0
    assert "one@example.org: sent before" in fixed.stderr
    assert [each.rcpt_tos for each in inbox.taken] == [["one@example.org"], ["two@example.org"]]


def test_a_lost_answer_means_one_more_copy_with_the_same_id(tmp_path, state, server, inbox, tls) -> None:
    """The server took it and the connection broke: nobody can know; the copy has the same Message-ID."""

    def break_off(server, envelope) -> str:
        inbox.taken.append(envelope)
        server.transport.abort()
        return "250 OK"

    inbox.answers = [break_off]
    config = _config(tmp_path, server, tls, recipients='["one@example.org"]')
    done = _send(state, config)
    assert done.exit_code == 0
    assert "the same Message-ID" in done.stderr
    first, copy = inbox.mails()
    assert first["Message-ID"] == copy["Message-ID"]
    assert inbox.taken[0].content == inbox.taken[1].content


def test_a_process_that_is_killed_sends_no_second_mail_unnoticed(
    tmp_path, state, server, inbox, tls, monkeypatch
) -> None:
    """kill -9 between the server's yes and our note: nobody may send; later the same bytes go out once."""
    config = _config(tmp_path, server, tls, recipients='["one@example.org"]')
    started = []

    def kill(server, envelope) -> str:
        inbox.taken.append(envelope)
        os.kill(started[0].pid, signal.SIGKILL)
        return "250 OK"

    inbox.answers = [kill]
    env = {**os.environ, "FORKWATCH_STATE_DIR": str(state), "FORKWATCH_CONFIG": str(config)}
    command = [sys.executable, "-m", "forkwatch", "digest", "--week", WEEK, "--send"]
    started.append(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
    assert started[0].wait(60) == -signal.SIGKILL
    busy = _send(state, config)
    assert "one@example.org: being sent" in busy.stderr
    monkeypatch.setenv("FORKWATCH_STATE_DIR", str(state))
    monkeypatch.setenv("FORKWATCH_CONFIG", str(config))
    with session(talk=Silent()) as context, pytest.raises(SendingError, match="should that have died"):
        write_digest(context, SimpleNamespace(payload={"week": WEEK}))  # the daemon's job is not done with it
    assert len(inbox.taken) == 1
    with sqlite3.connect(state / "forkwatch.db") as database:
        database.execute("UPDATE mailing SET claimed_until = '2020-01-01 00:00:00'")
    database.close()
    resent = _send(state, config)
    assert "one@example.org: sent (an earlier attempt may have got through" in resent.stderr
    assert inbox.taken[0].content == inbox.taken[1].content
    assert "sent before" in _send(state, config).stderr
    assert len(inbox.taken) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ca_file": '"missing.pem"'}, "mail.ca_file"),
        ({"password_file": '"missing"'}, "mail.password_file"),
        ({"sender": '"a@example.org\\nBcc: b@example.org"'}, "no plain mail address"),
        ({"recipients": "[]"}, "a host needs a sender and recipients"),
        ({"user": '"somebody"', "password_file": '"readable"'}, "others can read"),
    ],
)
def test_wrong_settings_are_said(tmp_path, state, tls, changes, says) -> None:
    """Before anything is sent."""
    (tmp_path / "readable").write_text("secret")
    (tmp_path / "readable").chmod(0o644)
    done = _send(state, _config(tmp_path, None, tls, **changes))
    assert done.exit_code == 2
    assert says in done.stderr


@pytest.fixture
def wrapped(inbox: Inbox, tls: SimpleNamespace) -> Iterator[Controller]:
    """TLS from the first byte, as on port 465."""
    running = MailServer(
        inbox,
        hostname="127.0.0.1",
        port=0,
        ssl_context=tls.context,
        auth_require_tls=False,  # the server does not see that its socket is wrapped
        authenticator=inbox.login,
    )
    running.start()
    yield running
    running.stop()


def test_tls_from_the_first_byte(tmp_path, state, wrapped, inbox, tls) -> None:
    """`security = "ssl"`: mail and login arrive; a certificate that nobody vouches for gets neither."""
    to_one = {"security": '"ssl"', "recipients": '["one@example.org"]', "attempts": "1"}
    stranger = _config(tmp_path, wrapped, tls, **to_one)
    stranger.write_text(
        "\n".join(x for x in stranger.read_text().splitlines() if not x.startswith("ca_file"))
    )
    refused = _send(state, stranger)
    assert (refused.exit_code, "certificate" in refused.stderr) == (4, True)
    assert not inbox.users
    done = _send(state, _config(tmp_path, wrapped, tls, **to_one))
    assert done.exit_code == 0, done.stderr
    assert inbox.users == [b"forkwatch"]
    (mail,) = inbox.mails()
    assert mail["To"] == "one@example.org"
    assert mail.get_body(("plain",)).get_content().startswith("forkwatch")


def test_the_wrong_kind_of_tls_is_said(tmp_path, state, server, inbox, tls) -> None:
    """A server that speaks first in clear, and is asked for TLS: one line, no traceback, no password."""
    config = _config(tmp_path, server, tls, security='"ssl"', recipients='["one@example.org"]', attempts="1")
    done = _send(state, config)
    assert done.exit_code == 4
    assert "Traceback" not in done.stderr
    assert not inbox.users


def test_without_tls_nothing_leaves(tmp_path, state, inbox, tls) -> None:
    """A server without STARTTLS, one that nobody vouches for, and one that does not know the password."""
    plain = MailServer(inbox, hostname="127.0.0.1", port=0)
    plain.start()
    done = _send(state, _config(tmp_path, plain, tls))
    plain.stop()
    assert done.exit_code == 4
    assert "STARTTLS" in done.stderr
    assert not inbox.taken
    assert not inbox.users


def test_a_stranger_gets_neither_mail_nor_password(tmp_path, state, server, inbox, tls) -> None:
    """A certificate that no trusted root vouches for; and a wrong password is not tried twice."""
    config = _config(tmp_path, server, tls)
    lines = [line for line in config.read_text().splitlines() if not line.startswith("ca_file")]
    config.write_text("\n".join(lines))
    done = _send(state, config)
    assert done.exit_code == 4
    assert "certificate" in done.stderr
    assert not inbox.users
    config = _config(tmp_path, server, tls, recipients='["one@example.org"]')
    (tmp_path / "password").write_text("wrong")
    assert "answered 535" in _send(state, config).stderr
    assert len(inbox.users) <= 2  # once for each way to say it
    assert not inbox.taken


def test_a_week_that_is_not_over_is_not_sent(tmp_path, state, tls) -> None:
    """What happens later in it would never be told. It can be looked at, which leaves nothing behind."""
    config = _config(tmp_path, None, tls)
    shown = invoke(state, "digest", "--week", "9999-W01", "--preview", FORKWATCH_CONFIG=str(config))
    assert shown.exit_code == 0
    assert shown.stdout.startswith("forkwatch 9999-W01: no change")
    assert not (state / "digests").exists()
    done = invoke(state, "digest", "--week", "9999-W01", "--send", FORKWATCH_CONFIG=str(config))
    assert done.exit_code == 2
    assert "is not over" in done.stderr


def test_the_default_is_the_last_week_that_is_over() -> None:
    """On Monday the week before, on Sunday still the one before that."""
    assert last_week(datetime(2026, 11, 30, 0, 0, tzinfo=UTC)) == "2026-W48"
    assert last_week(datetime(2026, 11, 29, 23, 59, tzinfo=UTC)) == "2026-W47"
    assert last_week(datetime(2027, 1, 4, tzinfo=UTC)) == "2026-W53"


def test_claims_exclude_each_other_and_keep_the_first_message(store: Store, clock: Clock) -> None:
    """Sent is final; a failed one can be claimed again, and a lapsed one by another, with the same bytes."""

    def ask(text: str = "other") -> Claim | Refused:
        return claim(store, WEEK, "One@example.org", lambda: Draft(f"<{text}>", text.encode()), LEASE)

    first = ask("first")
    assert isinstance(first, Claim)
    assert not first.uncertain
    assert ask() is Refused.BUSY
    assert note_failed(store, first, "554 no", uncertain=False)
    second = ask()
    assert isinstance(second, Claim)
    assert (second.message, second.message_id, second.uncertain) == (b"first", "<first>", False)
    clock.now += LEASE + timedelta(seconds=1)
    third = ask()
    assert isinstance(third, Claim)
    assert (third.message, third.uncertain) == (b"first", True)
    assert not note_sent(store, second)  # it came back too late, and no longer holds the claim
    assert note_sent(store, third)
    assert ask() is Refused.SENT
    assert not note_failed(store, third, "late", uncertain=True)
    assert isinstance(claim(store, "2026-W06", "one@example.org", lambda: Draft("<x>", b"x"), LEASE), Claim)
