"""How the daemon is: /healthz (it lives), /readyz (it can work), /metrics (Prometheus), on loopback.

Metrics are computed from the database when asked for, so that they are right after a restart and for work
that other boxes did. Labels are roles and states, never names of repositories.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError

from forkwatch.errors import SettingsError
from forkwatch.jobs.interface import JobState
from forkwatch.store.jobs import JobQueue
from forkwatch.store.outbox import Outbox
from forkwatch.store.schedules import Schedules

CATCHING_UP = timedelta(hours=1)
"""After a start, a crawl that was missed may take so long: nobody ran, or the clock was wrong, before."""


@dataclass(slots=True)
class Health:
    """Answers about a daemon."""

    queue: JobQueue
    outbox: Outbox
    schedules: Schedules
    now: Callable[[], datetime]
    stalled_after_hours: float
    alive: Callable[[], Mapping[str, bool]]
    root: Path
    """The state folder."""
    floor: int
    """Bytes of its disk that must remain free."""
    trouble: str | None = None
    """What hindered the last look at the database."""
    _not_before: datetime | None = None
    _began: datetime = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.now()

    def clock_was_set(self) -> None:
        """Time that did not pass stalls no crawl."""
        self._not_before = self._began = self.now()

    def stalled_since(self) -> datetime | None:
        """When a crawl last succeeded, if that is too long ago; None: it is not, or none was asked for."""
        asked = self.schedules.last_asked("crawl")
        last = self.schedules.last_success("crawl") or self.schedules.first_asked("crawl")
        if asked is None or last is None:
            return None
        counted = max(last, self._not_before or last)
        over = max(counted + timedelta(hours=self.stalled_after_hours), self._began + CATCHING_UP)
        return last if self.now() > over else None

    def problems(self) -> tuple[str, ...]:
        """Why it cannot work as it should, one sentence each."""
        try:
            since = self.stalled_since()
        except DBAPIError:
            return ("the database does not answer",)
        found = [] if since is None else [f"no crawl has succeeded since {since.isoformat()}"]
        if self.trouble is not None:
            found.append(self.trouble)
        if (free := shutil.disk_usage(self.root).free) < self.floor:
            found.append(f"the disk is full: {free >> 20} MiB free, {self.floor >> 20} must remain")
        dead = [name for name, lives in self.alive().items() if not lives]
        if dead:
            found.append(f"workers are not running: {', '.join(dead)}")
        return tuple(found)


class _Collector(Collector):
    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """Gauges, read from the database."""
        health, now = self._health, self._health.now()
        jobs = GaugeMetricFamily("forkwatch_jobs", "Jobs by role and state.", labels=["role", "state"])
        oldest = GaugeMetricFamily(
            "forkwatch_oldest_queued_seconds", "Age of the oldest job that waits.", labels=["role"]
        )
        for depth in health.queue.depths():
            jobs.add_metric([depth.role.value, depth.state.value], depth.count)
            if depth.state is JobState.QUEUED:
                oldest.add_metric([depth.role.value], max(0.0, (now - depth.oldest).total_seconds()))
        yield jobs
        yield oldest
        yield GaugeMetricFamily("forkwatch_alerts_waiting", "Messages not sent.", health.outbox.waiting())
        last = GaugeMetricFamily(
            "forkwatch_last_success_timestamp_seconds", "When a task last succeeded.", labels=["task"]
        )
        for task in ("crawl", "publish", "digest"):
            at = health.schedules.last_success(task)
            if at is not None:
                last.add_metric([task], at.timestamp())
        yield last
        workers = GaugeMetricFamily("forkwatch_worker_up", "Whether a worker runs.", labels=["worker"])
        for name, lives in health.alive().items():
            workers.add_metric([name], float(lives))
        yield workers


def require_port(address: str, port: int) -> None:
    """See that `serve` could listen there.

    Raises:
        SettingsError: it could not; says why.
    """
    try:
        ThreadingHTTPServer((address, port), BaseHTTPRequestHandler).server_close()
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {address}:{port}: {error.strerror}", tip="[daemon] listen and port say where."
        ) from error


def serve(health: Health, address: str, port: int, stack: ExitStack) -> int:
    """Answer in a thread until the stack closes; the port."""
    registry = CollectorRegistry()
    registry.register(_Collector(health))

    class Handler(BaseHTTPRequestHandler):
        """Three addresses, GET only."""

        timeout = 10

        def do_GET(self) -> None:
            """Answer."""
            match self.path:
                case "/healthz":
                    self._say(200, "text/plain", b"ok\n")
                case "/readyz":
                    problems = health.problems()
                    body = json.dumps({"ready": not problems, "problems": problems}).encode() + b"\n"
                    self._say(503 if problems else 200, "application/json", body)
                case "/metrics":
                    try:
                        self._say(200, "text/plain; version=0.0.4", generate_latest(registry))
                    except DBAPIError:
                        self._say(503, "text/plain", b"the database does not answer\n")
                case _:
                    self._say(404, "text/plain", b"not found\n")

        def _say(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: a probe every few seconds is no news."""

    server = ThreadingHTTPServer((address, port), Handler)
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return int(server.server_address[1])
