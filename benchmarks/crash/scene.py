"""What is judged while processes die: part of a demo family, a guarded release, people to tell."""

from __future__ import annotations

import email
import json
import logging
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine

ROOT = Path(__file__).resolve().parents[2]
EVALUATED = ("tiny-chat-uncensored", "tiny-chat-unfiltered", "tiny-chat-storyteller")
"""Forks of the tiny family that take the whole way, and teach the classifier."""
UNEVALUATED = ("tiny-chat-v2", "tiny-chat-members-only", "tiny-chat-pickled")
"""Forks that are judged without a forward pass: a round of them is a fraction of the time."""
FOUND, NEXT_WEEK = "2026-02-03T12:00:00+00:00", "2026-02-10T12:00:00+00:00"
"""When forks are judged, and when that week is over. The time of results stands still at each."""
WEEK = "2026-W06"
RECIPIENTS = ("one@example.org", "two@example.org")
SETTINGS = """
[hub]
endpoint = "{hub}"
retries = 1
free_space_floor_gb = 0.1

[evaluation]
max_new_tokens = 16

[daemon]
port = 0
crawl_every_minutes = 100000
grace_seconds = 5
eval_workers = {evaluators}
digest = false

[alerts]
command = ["{python}", "-S", "-c", "import sys; open('{told}', 'a').write(sys.stdin.read() + chr(10))"]

[mail]
host = "127.0.0.1"
port = {port}
ca_file = "{root}"
sender = "forkwatch@example.org"
recipients = {recipients}
timeout_seconds = 2
attempts = 1
pause_seconds = 0
"""


@dataclass
class Inbox:
    """A mail server on this machine, over TLS; it keeps what it takes."""

    folder: Path
    taken: list[tuple[str, bytes]] = field(default_factory=list)
    """Recipient and message."""
    _server: Any = None

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802
        """Take it."""
        self.taken.append((envelope.rcpt_tos[0], bytes(envelope.content)))
        return "250 OK"

    @property
    def root(self) -> Path:
        """Its certificate."""
        return self.folder / "mail.pem"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server.sockets[0].getsockname()[1])

    def start(self) -> None:
        """Make a certificate, and listen."""
        from aiosmtpd.controller import Controller

        logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # who sends may die in the middle

        class OnFreePort(Controller):
            """The port is known when it listens."""

            def _trigger_server(self) -> None:
                self.port = self.server.sockets[0].getsockname()[1]
                super()._trigger_server()

        key = self.folder / "mail.key"
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
        words += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {self.root}"
        subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.root, key)
        self._server = OnFreePort(
            self, hostname="127.0.0.1", port=0, tls_context=context, require_starttls=True
        )
        self._server.start()

    def stop(self) -> None:
        """Listen no more."""
        self._server.stop()


class Warm:
    """An interpreter that has imported everything, and forks daemons; safe to share between threads.

    `preload` is a library that is put before all others (LD_PRELOAD).
    """

    def __init__(self, preload: Path | None = None) -> None:
        self._preload = {} if preload is None else {"LD_PRELOAD": str(preload)}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.crash.warm"],
            env=_environment() | self._preload | {"CRASH_ORDERS": os.devnull},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._answer()

    def start_daemon(self, environment: dict[str, str], log: Path) -> int:
        """A new one; its process number."""
        assert self._process.stdin is not None
        with self._lock:
            asked = {"environment": environment | self._preload, "log": str(log)}
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            return int(self._answer())

    def close(self) -> None:
        """No more of them."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join((str(ROOT / "benchmarks/crash/preload"), str(ROOT)))
    return {**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@dataclass
class Scene:
    """A state folder, and who is told."""

    folder: Path
    inbox: Inbox
    warm: Warm
    url: str
    """Of its database."""
    clock: str = FOUND

    @property
    def orders(self) -> Path:
        """Where orders to die lie."""
        return self._beside("orders")

    @property
    def told(self) -> Path:
        """Alerts that were taken, one a line."""
        return self._beside("told.jsonl")

    @property
    def moved(self) -> Path:
        """By how many seconds the clock is wrong."""
        return self._beside("moved")

    def _beside(self, name: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}-{name}")

    @contextmanager
    def database(self) -> Iterator[Connection]:
        """A transaction."""
        waits = {"timeout": 60} if self.url.startswith("sqlite") else {}
        engine = create_engine(self.url, connect_args=waits)
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def environment(self) -> dict[str, str]:
        """Of every process of the product."""
        return {
            **_environment(),
            "FORKWATCH_STATE_DIR": str(self.folder),
            "FORKWATCH_CONFIG": str(self.folder / "forkwatch.toml"),
            "FORKWATCH_CLOCK": self.clock,
            "CRASH_ORDERS": str(self.orders),
            "CRASH_CLOCK": str(self.moved),
        }

    def start_daemon(self) -> int:
        """Another one; its process number."""
        return self.warm.start_daemon(self.environment(), self._beside("daemon.log"))


def with_pickle(family: Path, copy: Path) -> Path:
    """The family with an unrelated model that has the pickle of another: an alert, and no evaluation."""
    shutil.copytree(family, copy)
    repos = copy / "repos" / "demo"
    shutil.copytree(repos / "tiny-chat-v2", repos / "tiny-chat-pickled")
    shutil.copy(repos / "tiny-chat-torch" / "pytorch_model.bin", repos / "tiny-chat-pickled")
    hub = json.loads((copy / "hub.json").read_text())
    (row,) = [row for row in hub["repos"] if row["repo"] == "demo/tiny-chat-v2"]
    hub["repos"].append(row | {"repo": "demo/tiny-chat-pickled"})
    (copy / "hub.json").write_text(json.dumps(hub))
    return copy


def guarded(family: Path, folder: Path, forks: tuple[str, ...], url: str | None = None) -> Path:
    """A state folder with a guarded release and some of its forks on the demo's hub, and no result.

    `url` is of its database; None: SQLite in the folder.
    """
    copy = folder / "demo" / family.name
    copy.mkdir(parents=True)
    hub = json.loads((family / "hub.json").read_text())
    release = hub["release"]
    kept = [row for row in hub["repos"] if row["repo"] == release or row["repo"].endswith(forks)]
    (copy / "hub.json").write_text(json.dumps(hub | {"repos": kept}))
    for row in kept:
        shutil.copytree(family / "repos" / row["repo"], copy / "repos" / row["repo"])
    (folder / "forkwatch.toml").write_text('[hub]\nendpoint = "demo"\nfree_space_floor_gb = 0.1\n')
    command = [sys.executable, "-m", "forkwatch", "release", "add", release]
    command += ["--public-key", str(family / "keys" / "release.pub"), "--suite", str(family / "suite.json")]
    here = {"FORKWATCH_STATE_DIR": str(folder), "FORKWATCH_CONFIG": str(folder / "forkwatch.toml")}
    here |= {"FORKWATCH_CLOCK": FOUND} | ({"FORKWATCH_DATABASE__URL": url} if url else {})
    subprocess.run(command, env=os.environ | here, check=True, capture_output=True)
    return folder


def prepared(  # noqa: PLR0913 - keyword-only, two with a default
    base: Path, folder: Path, warm: Warm, *, evaluated: bool, hub: str = "demo", url: str | None = None
) -> Scene:
    """A copy of a guarded state, with people to tell.

    `hub` is an endpoint; `url` is of the database, where it does not lie in the folder.
    """
    shutil.copytree(base, folder, dirs_exist_ok=True)
    inbox = Inbox(folder)
    inbox.start()
    scene = Scene(folder, inbox, warm, url or f"sqlite:///{folder / 'forkwatch.db'}")
    text = SETTINGS.format(
        hub=hub,
        python=sys.executable,
        evaluators=int(evaluated),
        told=scene.told,
        port=inbox.port,
        root=inbox.root,
        recipients=json.dumps(RECIPIENTS),
    )
    text += "" if url is None else f'[database]\nurl = "{url}"\n'
    (folder / "forkwatch.toml").write_text(text)
    scene.orders.mkdir()
    return scene


# --- what came out ---


@dataclass(frozen=True)
class Outcome:
    """What people got to see, in bytes."""

    site: dict[str, bytes]
    digests: dict[str, bytes]
    alerts: dict[str, bytes]
    """By key."""
    alert_copies: int
    mails: dict[str, bytes]
    """By recipient and Message-ID."""
    mail_copies: int
    left: dict[str, int]
    """What dead processes left behind: working folders, unfinished downloads and blobs."""


def outcome(scene: Scene) -> Outcome:
    """As it is now. Nothing is left out of the site but the builder's own notes, which hold row numbers."""
    lines = scene.told.read_text().splitlines() if scene.told.exists() else []
    keys = Counter(json.loads(line)["key"] for line in lines)
    mails = Counter(_name(recipient, message) for recipient, message in scene.inbox.taken)
    return Outcome(
        site=_files(scene.folder / "site"),
        digests=_files(scene.folder / "digests"),
        alerts={json.loads(line)["key"]: line.encode() for line in lines},
        alert_copies=keys.total() - len(keys),
        mails={_name(recipient, message): message for recipient, message in scene.inbox.taken},
        mail_copies=mails.total() - len(mails),
        left={
            "scratch": len(list((scene.folder / "scratch").iterdir())),
            "parts": len(list(scene.folder.glob("cache/**/*.part"))),
            "blobs": len(list(scene.folder.glob("blobs/*.part"))),
            "journals": len(list(scene.folder.glob("journals/*"))),
        },
    )


@dataclass(frozen=True)
class Difference:
    """Between an interrupted run and the undisturbed one."""

    files: list[str]
    lost: list[str]
    """Alerts and mails that nobody got."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.files or self.lost)


def compared(calm: Outcome, rough: Outcome) -> Difference:
    """Byte by byte."""
    pairs: dict[str, tuple[dict[str, bytes], dict[str, bytes]]] = {
        "site": (calm.site, rough.site),
        "digests": (calm.digests, rough.digests),
        "alerts": (calm.alerts, rough.alerts),
        "mails": (calm.mails, rough.mails),
    }
    files = [
        f"{kind}/{name}"
        for kind, (ours, theirs) in pairs.items()
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    lost = sorted((calm.alerts.keys() - rough.alerts.keys()) | (calm.mails.keys() - rough.mails.keys()))
    return Difference(files, lost)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".forkwatch-site"
    }


def _name(recipient: str, message: bytes) -> str:
    return f"{recipient} {email.message_from_bytes(message)['Message-ID']}"
