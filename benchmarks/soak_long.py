"""The whole daemon for half an hour on a Hub that misbehaves: what grows, and what is left over.

    python -m benchmarks.soak_long FAMILY_STATE OUT [MINUTES] [SEED] [--database URL]

FAMILY_STATE is a state folder whose tiny family is built (`forkwatch demo`). A daemon with one worker a role,
which are never replaced, guards its release on a hub of ours (`soak_hub`): crawls every half minute, new
forks and commits every quarter, a digest every two minutes, alerts to a webhook that refuses one in ten,
faults all the time. Every five seconds: memory, open files and CPU time of each process, temporary files,
size of the database; `/metrics` is read as often. The first quarter of the time is warm-up and counts for no
slope.

Writes every sample of a process to `samples.json`, prints tables, and exits with 1 where something leaks:
memory of a long-lived process that grows by more than 10 MB an hour (lower end of the 95 % interval), files
that grow by more than two, processes, leases, temporary files or working folders that are left when the
daemon has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sqlalchemy import text

from benchmarks.soak_hub import Life
from benchmarks.soak_processes import Held, alive, family_of, slope
from forkwatch.clock import wall_clock
from forkwatch.demo.serve import demo_hub
from forkwatch.jobs.interface import NewJob, Role
from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue

SAMPLE_SECONDS, DIGEST_SECONDS, PORT = 5.0, 120.0, 9493
MOST_MB_AN_HOUR, MOST_FILES = 10.0, 2
SETTINGS = """
[hub]
endpoint = "{hub}"
timeout_seconds = 5
retries = 3
free_space_floor_gb = 0.1

[daemon]
port = {port}
crawl_every_minutes = 0.5
jobs_per_process = 1000000
grace_seconds = 30

[alerts]
on = ["safety-removed", "misrepresented", "unsafe-files", "verdict-changed"]
webhook = "{webhook}"
{database}
"""


@dataclass(slots=True)
class Seen:
    """Everything that was sampled."""

    held: list[tuple[float, Held]] = field(default_factory=list)
    scratch: list[tuple[float, int]] = field(default_factory=list)
    database: list[tuple[float, int]] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    scrapes: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    """Keys of alerts, by how often they were taken."""


@contextmanager
def webhook(seen: Seen, rng: random.Random) -> Iterator[str]:
    """Takes alerts, and refuses one in ten."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            refused = rng.random() < 0.1
            if not refused:
                seen.told[self.headers["Idempotency-Key"]] += 1
            self.send_response(500 if refused else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True, slots=True)
class Soak:
    """One state folder and its daemon."""

    root: Path
    url: str | None

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "FORKWATCH_STATE_DIR": str(self.root / "state"),
            "FORKWATCH_CONFIG": str(self.root / "state" / "forkwatch.toml"),
            "TMPDIR": str(self.root / "tmp"),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def database(self) -> str:
        return self.url or f"sqlite:///{self.root / 'state' / 'forkwatch.db'}"

    def prepare(self, hub: str, webhook: str, family: Path) -> None:
        """Settings, and the release."""
        for folder in ("state", "tmp"):
            (self.root / folder).mkdir(parents=True)
        database = "" if self.url is None else f'[database]\nurl = "{self.url}"\n'
        settings = SETTINGS.format(hub=hub, port=PORT, webhook=webhook, database=database)
        (self.root / "state" / "forkwatch.toml").write_text(settings)
        release = json.loads((family / "hub.json").read_text())["release"]
        words = ("release", "add", release, "--public-key", str(family / "keys" / "release.pub"))
        self._run(*words, "--suite", str(family / "suite.json"))

    def _run(self, *words: str) -> None:
        command = [sys.executable, "-m", "forkwatch", *words]
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def start(self) -> subprocess.Popen[bytes]:
        log = (self.root / "daemon.log").open("wb")
        command = [sys.executable, "-m", "forkwatch", "daemon"]
        return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def temporary(self) -> list[Path]:
        """Files that a process may have forgotten."""
        state = self.root / "state"
        found = [*(self.root / "tmp").rglob("*"), *(state / "scratch").rglob("*")]
        return found + [path for path in state.rglob("*") if path.suffix in {".tmp", ".part", ".new"}]

    def sample(self, daemon: int, at: float, seen: Seen) -> None:
        family = family_of(daemon)
        seen.processes.append(len(family))
        seen.held += [(at, held) for held in family]
        with suppress(OSError):  # what is listed may be gone before it is looked at
            seen.scratch.append((at, len(self.temporary())))
        seen.database.append((at, self._bytes()))
        for address in ("metrics", "readyz"):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/{address}", timeout=10) as answer:
                    answer.read()
                    seen.scrapes[f"{address} {answer.status}"] += 1
            except OSError as error:
                seen.scrapes[f"{address} {getattr(error, 'code', type(error).__name__)}"] += 1

    def _bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.root / "state").glob("forkwatch.db*"))


def soaked(soak: Soak, seconds: float, seen: Seen) -> tuple[int, float]:
    """The daemon's exit status, and the seconds that it took to stop."""
    daemon, began, week = soak.start(), time.monotonic(), date(2020, 1, 6)
    engine = open_engine(soak.database)
    queue, digest_at = JobQueue(engine, wall_clock), DIGEST_SECONDS
    while (at := time.monotonic() - began) < seconds:
        time.sleep(SAMPLE_SECONDS)
        if daemon.poll() is not None:
            raise SystemExit(f"the daemon ended with {daemon.returncode}, see {soak.root / 'daemon.log'}")
        soak.sample(daemon.pid, at, seen)
        if at > digest_at:
            digest_at, week = at + DIGEST_SECONDS, week + timedelta(days=7)
            name = f"{week:%G-W%V}"
            job = NewJob(kind="digest", key=f"digest:{name}", role=Role.PUBLISH, payload={"week": name})
            queue.enqueue([job])
    engine.dispose()
    stopping = time.monotonic()
    daemon.send_signal(signal.SIGTERM)
    return daemon.wait(120), time.monotonic() - stopping


def growth(seen: Seen, warm: float) -> list[str]:
    """Prints what each long-lived process held; what of it leaks."""
    leaks = []
    print(
        "\n| process | restarts | RSS, MB, at the end | slope, MB/h [95 %] | without pages of files |"
        " files, most | growth | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in ("daemon", *(role.value for role in Role)):
        mine = [(at, held) for at, held in seen.held if held.name == name]
        if not mine:
            leaks.append(f"{name} never ran")
            continue
        late = [(at, held) for at, held in mine if at >= warm]
        times = [at for at, _ in late]
        grows = slope(times, [held.rss / 1e6 for _, held in late])
        anonymous = slope(times, [held.anonymous / 1e6 for _, held in late])
        half = warm + (late[-1][0] - warm) / 2 if late else warm
        early_files = max((held.files for at, held in late if at < half), default=0)
        late_files = max((held.files for at, held in late if at >= half), default=0)
        restarts = len({(held.pid, held.began) for _, held in mine}) - 1
        rss, files = mine[-1][1].rss / 1e6, max(held.files for _, held in mine)
        print(
            f"| {name} | {restarts} | {rss:.0f} | {grows or 'too short'} | {anonymous or 'too short'} |"
            f" {files} | {late_files - early_files:+d} | {mine[-1][1].cpu:.0f} |"
        )
        if grows is not None and grows.low > MOST_MB_AN_HOUR:
            leaks.append(f"memory of {name}")
        if late_files - early_files > MOST_FILES:
            leaks.append(f"files of {name}")
        if restarts:
            leaks.append(f"{name} was started again")
    return leaks


def left_over(soak: Soak, seen: Seen) -> list[str]:
    """Prints what is there after the end; what of it should not be."""
    living = {held for _, held in seen.held if alive(held)}
    found = soak.temporary()
    engine = open_engine(soak.database)
    with engine.connect() as connection:
        jobs = connection.execute(text("SELECT kind, state, count(*) FROM job GROUP BY kind, state")).all()
        leases = connection.execute(text("SELECT count(*) FROM job WHERE lease <> ''")).scalar_one()
        waiting = connection.execute(text("SELECT count(*) FROM outbox WHERE sent_at IS NULL")).scalar_one()
        messages = connection.execute(text("SELECT count(*) FROM outbox")).scalar_one()
    engine.dispose()
    print(f"\njobs: {', '.join(f'{count} {kind} {state}' for kind, state, count in sorted(jobs))}")
    copies = sum(seen.told.values()) - len(seen.told)
    print(f"alerts: {messages} messages, {len(seen.told)} taken, {copies} copies, {waiting} still to be sent")
    print(f"left: {len(living)} processes, {leases} leases, {len(found)} temporary files {found[:5]}")
    wrong = {"processes": len(living), "leases": leases, "temporary files": len(found)}
    wrong["lost alerts"] = messages - waiting - len(seen.told)
    return [f"{count} {what} left" for what, count in wrong.items() if count]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("family", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("minutes", type=float, nargs="?", default=30.0)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--database")
    asked = parser.parse_args()
    demo, soak, seen = asked.out / "demo", Soak(asked.out, asked.database), Seen()
    shutil.copytree(asked.family / "demo" / "tiny", demo / "tiny")
    seconds, rng = asked.minutes * 60, random.Random(asked.seed)
    with demo_hub(demo) as hub, webhook(seen, rng) as address:
        soak.prepare(hub.endpoint, address, demo / "tiny")
        life = Life(hub, demo / "tiny", asked.seed)
        life.start()
        status, stop = soaked(soak, seconds, seen)
        life.stopping.set()
        life.join()
        requests = len(hub.requests)
    (asked.out / "samples.json").write_text(json.dumps([(at, *astuple(held)) for at, held in seen.held]))
    leaks = report(soak, seen, life, seconds)
    print(f"{requests} requests to the hub; the daemon ended with {status} in {stop:.1f} s")
    leaks += [] if status == 0 else [f"exit status {status}"]
    print(f"\n{'FAIL: ' + '; '.join(leaks) if leaks else 'pass'}")
    sys.exit(bool(leaks))


def report(soak: Soak, seen: Seen, life: Life, seconds: float) -> list[str]:
    """Everything but the verdict; what leaks."""
    print(f"{seconds / 60:.0f} minutes, {len(seen.processes)} samples")
    print("happened: " + ", ".join(f"{count} {what}" for what, count in sorted(life.happened.items())))
    leaks = growth(seen, seconds / 4)
    children = [held for _, held in seen.held if held.name == "child"]
    print(f"\nprocesses at once: {min(seen.processes)} to {max(seen.processes)};", end=" ")
    print(f"{len({(held.pid, held.began) for held in children})} evaluation children seen")
    print(f"database: {seen.database[0][1] / 1e6:.1f} to {seen.database[-1][1] / 1e6:.1f} MB;", end=" ")
    print(f"temporary files at once: {max(count for _, count in seen.scratch)} at most")
    print(f"health: {dict(seen.scrapes)}")
    return leaks + left_over(soak, seen)


if __name__ == "__main__":
    main()
