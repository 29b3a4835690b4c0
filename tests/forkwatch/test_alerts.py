"""News reaches people at least once, with what it tells or not at all."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from forkwatch.alerts import Teller, deliver, rules
from forkwatch.sections.telling import AlertSettings
from forkwatch.settings import Settings
from forkwatch.store.engine import open_engine
from forkwatch.store.outbox import Outbox
from forkwatch.store.store import Store
from reports.scan import ScanDocument
from tests.forkwatch.past import Clock
from tests.forkwatch.samples import SNAPSHOT
from tests.forkwatch.test_store import _release as add_release
from tests.reports.sample_forks import FORKS
from tests.reports.sample_scans import scan

REMOVED = replace(scan(FORKS[0]), verdict=replace(scan(FORKS[0]).verdict, label="safety-removed"))
BENIGN = replace(REMOVED, verdict=replace(REMOVED.verdict, label="benign-derivative"))
WANTED = AlertSettings(command=("true",))


class Receiver:
    """A real webhook that keeps what it gets, and refuses the first few."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, object]]] = []
        self.refuse = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.got.append((self.headers["Idempotency-Key"], body))
                outer.refuse -= 1
                self.send_response(500 if outer.refuse >= 0 else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'alerts.db'}")
    yield engine
    engine.dispose()


def judged(engine: Engine, clock: Clock, settings: AlertSettings, *documents: ScanDocument) -> Outbox:
    """The outbox after verdicts about one repository, one after the other."""
    store = Store(engine, clock, rules(settings))
    release, snapshot = add_release(store), store.pin(SNAPSHOT)
    for document in documents:
        store.add_verdict(release, snapshot, document)
    return Outbox(engine, clock)


def test_news_is_kept_with_its_verdict(engine: Engine, clock: Clock) -> None:
    (message,) = judged(engine, clock, WANTED, BENIGN, REMOVED, REMOVED).due()
    assert message.payload["verdict"] == "safety-removed"
    assert message.payload["before"] == "benign-derivative"
    assert message.payload["repo"] == REMOVED.repo


def test_a_verdict_that_is_not_kept_leaves_no_news(engine: Engine, clock: Clock) -> None:
    store = Store(engine, clock, rules(WANTED))
    release, snapshot = add_release(store), store.pin(SNAPSHOT)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE outbox"))
    with pytest.raises(Exception, match="outbox"):
        store.add_verdict(release, snapshot, REMOVED)
    assert store.verdicts(release) == ()


@pytest.mark.parametrize(
    "settings",
    [
        AlertSettings(),
        AlertSettings(command=("true",), on=()),
        AlertSettings(command=("true",), min_downloads=10**9),
    ],
)
def test_what_nobody_wants_to_hear_is_not_told(engine: Engine, clock: Clock, settings: AlertSettings) -> None:
    assert judged(engine, clock, settings, REMOVED).due() == ()


def test_every_change_when_that_is_wanted(engine: Engine, clock: Clock) -> None:
    settings = WANTED.model_copy(update={"on": ("verdict-changed",)})
    (message,) = judged(engine, clock, settings, REMOVED, BENIGN).due()
    assert (message.payload["before"], message.payload["verdict"]) == ("safety-removed", "benign-derivative")


def test_a_webhook_that_fails_is_tried_again_with_the_same_key(
    engine: Engine, clock: Clock, receiver: Receiver
) -> None:
    receiver.refuse = 1
    alerts = AlertSettings(webhook=receiver.url)
    outbox = judged(engine, clock, alerts, REMOVED)
    teller = Teller(Settings(alerts=alerts))
    assert deliver(outbox, teller) == (0, 1)
    assert deliver(outbox, teller) == (0, 0), "it waits before it tries again"
    clock.now += timedelta(minutes=1)
    assert deliver(outbox, teller) == (1, 0)
    assert outbox.due() == ()
    (first, _), (second, body) = receiver.got
    assert first == second == body["key"]
    assert body["schema"] == "forkwatch.alert/1"


def test_a_command_gets_the_message_and_no_argument_from_a_fork(
    engine: Engine, clock: Clock, tmp_path: Path
) -> None:
    out = tmp_path / "told.json"
    program = f"import sys; open({str(out)!r}, 'w').write(sys.stdin.read()); assert len(sys.argv) == 1"
    alerts = AlertSettings(command=(sys.executable, "-c", program))
    assert deliver(judged(engine, clock, alerts, REMOVED), Teller(Settings(alerts=alerts))) == (1, 0)
    assert json.loads(out.read_text())["repo"] == REMOVED.repo


def test_one_that_cannot_be_told_does_not_hold_the_others(engine: Engine, clock: Clock) -> None:
    outbox = judged(
        engine, clock, WANTED.model_copy(update={"on": ("verdict-changed",)}), REMOVED, BENIGN, REMOVED
    )
    assert len(outbox.due()) == 2
    alerts = AlertSettings(command=("/nonexistent/program",))
    assert deliver(outbox, Teller(Settings(alerts=alerts))) == (0, 2)
    assert outbox.waiting() == 2
