"""What an operator asks: settings, database, queue, logs."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crawler.client import HubClient
from forkwatch import logs
from forkwatch.cli.app import app
from forkwatch.cli.session import session
from forkwatch.errors import SettingsError
from forkwatch.pipeline.context import Silent
from forkwatch.sections.hub import HubSettings
from forkwatch.settings import Settings, hand_over, hub_token, load_settings, take_over
from forkwatch.state import StateDir
from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue
from forkwatch.store.store import Store
from tests.forkwatch.conftest import guarded
from tests.forkwatch.jobs.test_queue import read
from tests.forkwatch.past import Clock

RUN = CliRunner()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with a settings file."""
    monkeypatch.setenv("FORKWATCH_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "forkwatch.toml").write_text("[daemon]\nport = 1234\n")
    return tmp_path


def test_settings_are_shown_with_their_origin_and_without_passwords(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORKWATCH_DATABASE__URL", "postgresql+psycopg://u:hunter2@db/forkwatch")
    shown = RUN.invoke(app, ["config", "show", "--json"])
    assert shown.exit_code == 0
    assert "hunter2" not in shown.output
    settings = json.loads(shown.stdout)["settings"]
    assert settings["daemon.port"]["value"] == 1234
    assert settings["daemon.port"]["from"].endswith("forkwatch.toml")
    assert settings["database.url"]["from"] == "FORKWATCH_DATABASE__URL"
    assert settings["daemon.grace_seconds"]["from"] == "default"


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("daemon", "port", "http"),
        ("hub", "endpoint", "huggingface.co"),
        ("hub", "endpoint", "https://"),
        ("hub", "endpoint", "https://hub:port"),
        ("hub", "endpoint", "ftp://hub"),
        ("alerts", "webhook", "http://127.0.0.1.example.org/"),
        ("alerts", "webhook", "http://127.0.0.1@example.org/"),
    ],
)
def test_a_wrong_setting_is_one_line(state: Path, section: str, name: str, value: str) -> None:
    """At the start, and not when it is used first."""
    (state / "forkwatch.toml").write_text(f"[{section}]\n{name} = '{value}'\n")
    checked = RUN.invoke(app, ["status"])
    assert checked.exit_code == 2
    assert f"{section}.{name}" in checked.output


def test_the_schema_is_of_the_settings(state: Path) -> None:
    schema = json.loads(RUN.invoke(app, ["config", "schema"]).stdout)
    assert set(schema["properties"]) == set(Settings.model_fields)


def test_settings_are_handed_over_whole(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With secrets, and without asking file or environment again."""
    (state / "forkwatch.toml").write_text(
        '[database]\nurl = "postgresql+psycopg://u:hunter2@db/forkwatch"\n[attest]\nprivate_key = "k.pem"\n'
        '[alerts]\ncommand = ["/bin/true"]\n[releases."org/name"]\nunsigned = true\n'
    )
    settings = load_settings()
    handed = hand_over(settings)
    (state / "forkwatch.toml").write_text("[broken")
    monkeypatch.setenv("FORKWATCH_DAEMON__PORT", "1")
    monkeypatch.chdir("/")
    taken = take_over(handed)
    assert taken.model_dump() == settings.model_dump()
    assert taken.database.url is not None
    assert "hunter2" in taken.database.url.get_secret_value()
    assert (settings.folder, taken.folder) == (state, state)
    with pytest.raises(SettingsError):
        take_over(b"{")


def test_a_backup_is_whole_private_and_replaces_nothing(state: Path) -> None:
    assert RUN.invoke(app, ["db", "upgrade"]).exit_code == 0
    out = state / "copy.db"
    assert RUN.invoke(app, ["db", "backup", str(out)]).exit_code == 0
    assert out.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(out) as copy:
        assert copy.execute("SELECT count(*) FROM job").fetchone() == (0,)
    before = out.read_bytes()
    assert RUN.invoke(app, ["db", "backup", str(out)]).exit_code == 2
    assert out.read_bytes() == before
    (state / "file").touch()
    nowhere = RUN.invoke(app, ["db", "backup", str(state / "file" / "copy.db")])
    assert (nowhere.exit_code, "cannot write to" in nowhere.output) == (2, True)


def test_jobs_are_listed_and_tried_again(state: Path, clock: Clock) -> None:
    queue = JobQueue(open_engine(f"sqlite:///{state / 'forkwatch.db'}"), clock)
    queue.enqueue([read("org/poison")])
    job = queue.claim((read("x").role,), "me")
    assert job is not None
    queue.fail(job, "broken", final=True)
    (row,) = json.loads(RUN.invoke(app, ["queue", "ls", "--state", "quarantined", "--json"]).stdout)["jobs"]
    assert (row["payload"]["repo"], row["error"]) == ("org/poison", "broken")
    assert RUN.invoke(app, ["queue", "retry"]).exit_code == 0
    assert [each.state for each in queue.jobs()] == ["queued"]


def test_health_without_a_daemon_says_so(state: Path) -> None:
    answer = RUN.invoke(app, ["health"])
    assert answer.exit_code == 5
    assert "no daemon answers on 127.0.0.1:1234" in answer.output


def test_the_token_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "token").write_text("hf_abcdefgh\n")
    monkeypatch.setenv("HF_TOKEN_FILE", str(tmp_path / "token"))
    token = hub_token()
    assert token is not None
    assert token.get_secret_value() == "hf_abcdefgh"


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("restored_logging")
def test_logs_are_json_without_tokens_and_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    import structlog

    logs.configure(json=True)
    structlog.get_logger("t").info("crawl", repo="a/\x1b[31mb\n{}", url="postgresql://u:pw@host/x")
    logging.getLogger("lib").warning("sent hf_%s to Bearer abc123", "q" * 20)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert "\x1b" not in first["repo"]
    assert "\n" not in first["repo"]
    assert first["url"] == "postgresql://[redacted]@host/x"
    assert second["event"] == "sent [redacted] to [redacted]"
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("words", "settings", "code", "said"),
    [
        (["queue", "retry", "99"], "", 2, "no quarantined job 99"),
        (["queue", "purge", "--days", "nan"], "", 2, "--days"),
        (["queue", "purge", "--days", "1e9"], "", 2, "--days"),
        (["db", "prune", "--days", "nan"], "", 2, "--days"),
        (["db", "upgrade"], '[database]\nurl = "mysql://u:hunter2@h/d"', 2, "no address of a database"),
        (["db", "upgrade"], '[database]\nurl = "postgresql+psycopg://u:hunter2@127.0.0.1:9/d"', 5, "cannot"),
        (["worker", "--drain"], '[database]\nurl = "nonsense hunter2"', 2, "no address of a database"),
        (["worker", "--role", "cook"], "", 2, "cook"),
        (["daemon"], '[database]\nurl = "postgresql+psycopg://u:hunter2@127.0.0.1:9/d"', 5, "cannot"),
        (["daemon"], '[daemon]\nlisten = "192.0.2.1"', 2, "cannot listen on 192.0.2.1"),
        (["health"], "[daemon]\nport = 'x'", 2, "daemon.port"),
        (["config", "check"], '[daemon]\nlisten = "everywhere"', 2, "daemon.listen"),
        (["config", "check"], '[attest]\nprivate_key = "none.pem"', 2, "none.pem"),
        (["config", "check"], '[alerts]\nwebhook_token_file = "none"', 2, "none"),
        (["config", "check"], '[alerts]\ncommand = ["/no/such"]', 2, "/no/such"),
        (["config", "check"], "[alerts]\nmail = true", 2, "nowhere to send to"),
        (["config", "check"], '[daemon]\nray_address = "auto"', 2, "database.url"),
        (["config", "check"], '[releases."a/b"]\npublic_key = "none.pem"', 2, "none.pem"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_one_line_and_a_code_of_the_table(
    state: Path, words: list[str], settings: str, code: int, said: str
) -> None:
    (state / "forkwatch.toml").write_text(settings + "\n")
    done = RUN.invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output
    assert said in done.output
    assert "hunter2" not in done.output
    assert "internal error" not in done.output


def test_a_worker_refuses_a_state_folder_that_is_not_the_database_s(state: Path, clock: Clock) -> None:
    store = Store(open_engine(f"sqlite:///{state / 'forkwatch.db'}"), clock)
    store.add_release(guarded())
    store.close()
    refused = RUN.invoke(app, ["worker", "--drain", "--role", "read"])
    assert (refused.exit_code, "lacks the prompts of lab/guarded" in refused.output) == (2, True)
    assert RUN.invoke(app, ["worker", "--drain", "--role", "crawl"]).exit_code == 0


def test_the_hub_is_made_when_it_is_asked_and_closed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    class Client(HubClient):
        def __init__(self, **options: Any) -> None:
            happened.append("made")
            super().__init__(**options)

        def close(self) -> None:
            happened.append("closed")
            super().close()

    monkeypatch.setattr("crawler.client.HubClient", Client)
    settings = Settings(hub=HubSettings(endpoint="http://127.0.0.1:9", free_space_floor_gb=0))
    with session(settings, StateDir(tmp_path), talk=Silent()) as context:
        assert happened == []
        context.hub.require_room()
        assert context.hub.cost.requests == 0
        assert happened == ["made"]
    assert happened == ["made", "closed"]
    with session(settings, StateDir(tmp_path), talk=Silent()):
        pass
    assert happened == ["made", "closed"]
