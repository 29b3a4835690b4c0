"""The daemon's own process: asks for work, keeps workers running, tells people. It does no work itself.

It holds nothing that matters: killed at any point, the next one finds everything in the database.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import DBAPIError

from forkwatch.alerts import Teller, deliver
from forkwatch.daemon import schedule, systemd
from forkwatch.daemon.health import Health, serve
from forkwatch.daemon.interface import Slot, Workers
from forkwatch.daemon.processes import Processes, worker_command
from forkwatch.errors import SettingsError
from forkwatch.jobs.interface import Role
from forkwatch.settings import Settings, load_settings
from forkwatch.state import StateDir
from forkwatch.store.jobs import JobQueue
from forkwatch.store.outbox import Message, Outbox
from forkwatch.store.schedules import Schedules
from forkwatch.store.store import Store

_log = structlog.get_logger("forkwatch.daemon")

HOUSEKEEPING_SECONDS = 15.0
"""Between two looks at lost leases, messages that are due, and stalled crawls."""


@dataclass(slots=True)
class Signals:
    """What the daemon was told. A second request to stop does not wait."""

    stop: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)
    number: int = 0

    def install(self) -> None:
        """SIGTERM and SIGINT stop, SIGHUP reloads."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told)
        signal.signal(signal.SIGHUP, lambda *_: self.reload.set())

    def _told(self, number: int, _frame: object) -> None:
        if self.stop.is_set():
            raise SystemExit(128 + number)
        self.number = number
        self.stop.set()


@dataclass(frozen=True, slots=True)
class Daemon:
    """Settings and state of one daemon; `run` returns when it was told to stop or to reload."""

    settings: Settings
    state: StateDir
    store: Store
    signals: Signals
    gpus: int

    def run(self) -> None:
        """Until told otherwise."""
        options = self.settings.daemon
        queue, outbox = self._queue(), Outbox(self.store.engine, lambda: self.store.now)
        schedules = Schedules(self.store.engine, lambda: self.store.now)
        asker = schedule.Asker(queue, schedules, self._releases, lambda: self.store.now)
        pool = self._workers()
        health = Health(
            queue, outbox, schedules, lambda: self.store.now, options.stalled_after_hours, pool.alive
        )
        with ExitStack() as stack:
            port = serve(health, options.listen, options.port, stack)
            scheduler = schedule.start(options, asker)
            stack.callback(scheduler.shutdown, wait=False)
            stack.callback(pool.kill)
            _log.info("ready", port=port, workers=len(pool.slots))
            systemd.notify("READY=1", f"STATUS={len(pool.slots)} workers, http port {port}")
            self._watch(pool, queue, outbox, health)
            systemd.notify("STOPPING=1" if self.signals.stop.is_set() else "RELOADING=1")
            pool.stop(options.grace_seconds)

    def _watch(self, pool: Workers, queue: JobQueue, outbox: Outbox, health: Health) -> None:
        beat, kept = systemd.watchdog_seconds(), 0.0
        while not self.signals.stop.is_set() and not self._reloads():
            pool.tend()
            if time.monotonic() - kept > HOUSEKEEPING_SECONDS:
                kept = time.monotonic()
                self._keep_house(queue, outbox, health)
            if beat is not None:
                systemd.notify("WATCHDOG=1")
            self.signals.stop.wait(min(1.0, beat / 2 if beat else 1.0))

    def _reloads(self) -> bool:
        """Whether new settings wait that can be read: a mistake in them must not end what runs."""
        if not self.signals.reload.is_set():
            return False
        if reread() is None:
            self.signals.reload.clear()
            return False
        return True

    def _keep_house(self, queue: JobQueue, outbox: Outbox, health: Health) -> None:
        """Nothing of it may end the daemon: a database that is away comes back."""
        with suppress(DBAPIError):
            if lost := queue.reap():
                _log.warning("workers died", jobs=lost)
            alerts = self.settings.alerts
            if not alerts.wanted:
                return
            if alerts.stalled and (since := health.stalled_since()) is not None:
                outbox.put([_stalled(since)])
            taken, left = deliver(outbox, Teller(self.settings))
            if taken or left:
                _log.info("alerts", sent=taken, failed=left)

    def _workers(self) -> Workers:
        options = self.settings.daemon
        if options.ray_address is None:
            return Processes(worker_command(), slots(self.settings, self.gpus))
        from forkwatch.daemon.on_ray import RayWorkers, connect

        return RayWorkers(
            connect(options.ray_address),
            slots(self.settings, 0),
            options.jobs_per_process,
            gpus_each=0.0 if self.settings.evaluation.device == "cpu" else options.ray_gpus_each,
        )

    def _queue(self) -> JobQueue:
        return JobQueue(self.store.engine, lambda: self.store.now)

    def _releases(self) -> tuple[str, ...]:
        return tuple(row.repo for row in self.store.releases())


def _stalled(since: object) -> Message:
    return Message(
        kind="stalled",
        key=f"stalled:{since}",
        payload={
            "schema": "forkwatch.alert/1",
            "kind": "stalled",
            "summary": f"no crawl has succeeded since {since}",
            "at": str(since),
        },
    )


def reread() -> Settings | None:
    """The settings as they are now; None, and a line in the log, where there is a mistake in them."""
    try:
        return load_settings()
    except SettingsError as error:
        _log.error("settings not read again; those from before stay", error=str(error))
        return None


def slots(settings: Settings, gpus: int) -> tuple[Slot, ...]:
    """The workers that should run: one evaluator sees one GPU, where there are any."""
    options = settings.daemon
    wanted = (
        (Role.CRAWL, options.crawl_workers),
        (Role.READ, options.read_workers),
        (Role.EVAL, options.eval_workers),
        (Role.PUBLISH, options.publish_workers),
    )
    return tuple(
        Slot(role, number, number % gpus if role is Role.EVAL and gpus else None)
        for role, count in wanted
        for number in range(count)
    )
