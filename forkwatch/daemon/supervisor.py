"""The daemon's own process: asks for work, keeps workers running, tells people. It does no work itself.

It holds nothing that matters: killed at any point, the next one finds everything in the database.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy import Engine

from forkwatch.clock import wall_clock
from forkwatch.daemon import schedule, systemd
from forkwatch.daemon.health import Health, require_port, serve
from forkwatch.daemon.housekeeping import Housekeeping
from forkwatch.daemon.interface import Slot, Workers
from forkwatch.daemon.processes import Processes, worker_command
from forkwatch.errors import ForkwatchError
from forkwatch.jobs.interface import Role
from forkwatch.settings import Settings, gib, load_settings
from forkwatch.state import StateDir
from forkwatch.store.jobs import JobQueue
from forkwatch.store.outbox import Outbox
from forkwatch.store.schedules import Schedules
from forkwatch.store.store import Store

_log = structlog.get_logger("forkwatch.daemon")


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
class Renewed:
    """Settings that were read again, with the database that they name: both can be used."""

    settings: Settings
    engine: Engine


@dataclass(frozen=True, slots=True)
class Daemon:
    """Settings and state of one daemon; `run` returns when it was told to stop, or new settings wait."""

    settings: Settings
    state: StateDir
    store: Store
    signals: Signals
    pool: Workers
    opened: Callable[[Settings], Engine]
    """Opens the database of some settings."""

    def run(self) -> Renewed | None:
        """Until told otherwise."""
        options, now = self.settings.daemon, lambda: self.store.now
        schedules = Schedules(self.store.engine, now)
        asker = schedule.Asker(self._queue(), schedules, self._releases, now)
        health = Health(
            self._queue(),
            Outbox(self.store.engine, now),
            schedules,
            now,
            options.stalled_after_hours,
            self.pool.alive,
            self.state.root,
            gib(self.settings.hub.free_space_floor_gb),
        )
        with ExitStack() as stack:
            calendar = schedule.Calendar(options, asker)
            stack.callback(calendar.shutdown)
            ended = threading.Event()

            def clock_was_set(by: timedelta) -> None:
                health.clock_was_set()
                calendar.clock_was_set(by)

            port = serve(health, options.listen, options.port, stack)
            house = Housekeeping(self.settings, self.store, health, clock_was_set)
            stack.callback(house.start(ended).join, 5.0)
            stack.callback(ended.set)
            _log.info("ready", port=port, workers=len(self.pool.slots))
            systemd.notify("READY=1", f"STATUS={len(self.pool.slots)} workers, http port {port}")
            return self._watch()

    def _watch(self) -> Renewed | None:
        beat = systemd.watchdog_seconds()
        while not self.signals.stop.is_set():
            if self.signals.reload.is_set():
                self.signals.reload.clear()
                if (renewed := self._renewed()) is not None:
                    return renewed
            self.pool.tend()
            if beat is not None:
                systemd.notify("WATCHDOG=1")
            self.signals.stop.wait(min(1.0, beat / 2 if beat else 1.0))
        return None

    def _renewed(self) -> Renewed | None:
        """New settings, if they can be used: a mistake in them must not end what runs."""
        options = self.settings.daemon
        try:
            settings = load_settings()
            if (settings.daemon.listen, settings.daemon.port) != (options.listen, options.port):
                require_port(settings.daemon.listen, settings.daemon.port)
            if settings.daemon.ray_address not in (None, options.ray_address):
                from forkwatch.daemon.on_ray import require_cluster

                require_cluster(settings.daemon.ray_address)
            return Renewed(settings, self.opened(settings))
        except ForkwatchError as error:
            _log.error("settings not read again; those from before stay", error=str(error))
            return None

    def _queue(self) -> JobQueue:
        return JobQueue(self.store.engine, lambda: self.store.now)

    def _releases(self) -> tuple[str, ...]:
        return tuple(row.repo for row in self.store.releases())


def supervise(
    settings: Settings,
    state: StateDir,
    signals: Signals,
    gpus: Callable[[str], int],
    opened: Callable[[Settings], Engine],
) -> None:
    """Run until told to stop. With new settings everything here begins anew but the jobs that workers do.

    Args:
        settings: To begin with.
        state: The state folder.
        signals: What is waited for.
        gpus: How many there are for a `[evaluation] device`.
        opened: Opens the database of some settings.

    Raises:
        SettingsError: the Ray cluster cannot be used.
        ForkwatchError: the database cannot be opened.
    """
    require_port(settings.daemon.listen, settings.daemon.port)
    engine, pool = opened(settings), _workers(settings, gpus)
    try:
        while not signals.stop.is_set():
            store = Store(engine, wall_clock)
            try:
                renewed = Daemon(settings, state, store, signals, pool, opened).run()
            finally:
                store.close()
            if renewed is None:
                break
            pool = _renewed_workers(pool, settings, renewed.settings, gpus)
            settings, engine = renewed.settings, renewed.engine
            systemd.notify("STATUS=settings read again")
            _log.info("settings read again")
        systemd.notify("STOPPING=1")
        pool.stop(settings.daemon.grace_seconds)
    finally:
        pool.kill()


def _workers(settings: Settings, gpus: Callable[[str], int]) -> Workers:
    options = settings.daemon
    if options.ray_address is None:
        return Processes(worker_command(), settings, slots(settings, gpus))
    from forkwatch.daemon.on_ray import RayWorkers, connect

    return RayWorkers(connect(options.ray_address), settings, slots(settings, gpus))


def _renewed_workers(
    pool: Workers, before: Settings, settings: Settings, gpus: Callable[[str], int]
) -> Workers:
    if before.daemon.ray_address == settings.daemon.ray_address:
        pool.renew(settings, slots(settings, gpus))
        return pool
    pool.stop(before.daemon.grace_seconds)
    return _workers(settings, gpus)


def slots(settings: Settings, gpus: Callable[[str], int]) -> tuple[Slot, ...]:
    """The workers that should run: one evaluator sees one GPU, where there are any. Ray places its own."""
    options = settings.daemon
    here = 0 if options.ray_address is not None else gpus(settings.evaluation.device)
    wanted = (
        (Role.CRAWL, options.crawl_workers),
        (Role.READ, options.read_workers),
        (Role.EVAL, options.eval_workers),
        (Role.PUBLISH, options.publish_workers),
    )
    return tuple(
        Slot(role, number, number % here if role is Role.EVAL and here else None)
        for role, count in wanted
        for number in range(count)
    )
