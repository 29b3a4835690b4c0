"""What the daemon looks after besides its workers: lost leases, the clock, jobs set aside, messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy.exc import DBAPIError

from forkwatch.alerts import Teller, deliver
from forkwatch.clock import Jumps
from forkwatch.daemon.health import Health
from forkwatch.jobs.interface import LEASE
from forkwatch.pipeline.quarantine import retry_unreachable, show_quarantined
from forkwatch.settings import Settings
from forkwatch.store.jobs import JobQueue
from forkwatch.store.messages import Message
from forkwatch.store.outbox import Outbox
from forkwatch.store.store import Store

_log = structlog.get_logger("forkwatch.daemon")

EVERY_SECONDS = 15.0


@dataclass(slots=True)
class Reaper:
    """Takes back what dead workers held. It compares no clocks: they differ between boxes, and are set.

    A worker extends its lease every quarter of it; one that stays the same for its whole length, on the
    steady clock of this process, is nobody's any more.
    """

    queue: JobQueue
    steady: Callable[[], float] = time.monotonic
    _since: dict[tuple[str, object], float] = field(default_factory=dict)

    def reap(self) -> int:
        """Look, and take back; how many jobs.

        Raises:
            DBAPIError: the database is away. Nobody can extend a lease then, so all start anew.
        """
        now, before = self.steady(), self._since
        self._since = {}
        held = self.queue.leases()
        stale = {each[0] for each in held if now - before.get(each, now) > LEASE.total_seconds()}
        lost = self.queue.reap(stale)
        self._since = {each: before.get(each, now) for each in held if each[0] not in stale}
        return lost


@dataclass(slots=True)
class Housekeeping:
    """One look at everything, and a thread that looks every 15 seconds: a slow webhook holds nothing else."""

    settings: Settings
    store: Store
    health: Health
    clock_was_set: Callable[[timedelta], None]
    jumps: Jumps = field(default_factory=Jumps)
    reaper: Reaper = field(init=False)
    _shown: set[int] = field(default_factory=set)
    _moved: timedelta = timedelta(0)
    """By how much the clock was set, while nobody could be told."""

    def __post_init__(self) -> None:
        self.reaper = Reaper(self._queue())

    def start(self, stop: threading.Event) -> threading.Thread:
        """Look until told to stop."""

        def run() -> None:
            while not stop.is_set():
                self.look()
                stop.wait(EVERY_SECONDS)

        thread = threading.Thread(target=run, name="housekeeping", daemon=True)
        thread.start()
        return thread

    def look(self) -> None:
        """Nothing of it may end the thread, unseen: a database that is away, and a full disk, come back."""
        if moved := self.jumps.look():
            _log.warning("the clock was set", seconds=moved.total_seconds())
            self._moved += moved
        try:
            if self._moved:
                self.clock_was_set(self._moved)
                self._moved = timedelta(0)
            self._keep()
            self.health.trouble = None
        except DBAPIError as error:
            self.health.trouble = f"the database cannot be used: {type(error.orig).__name__}"
            _log.warning("database", error=str(error.orig)[:300])
        except Exception as error:  # noqa: BLE001 - see above; /readyz says so
            self.health.trouble = f"leases, alerts and schedule are not looked after: {type(error).__name__}"
            _log.error("housekeeping", exc_info=True)

    def _keep(self) -> None:
        if lost := self.reaper.reap():
            _log.warning("workers died", jobs=lost)
        if shown := show_quarantined(self.settings, self.store, self._queue(), self._shown):
            _log.warning("set aside", repos=shown)
        self._queue().forget_made_up("crawl")
        if again := retry_unreachable(self.health.schedules, self._queue()):
            _log.info("the Hub answers again", jobs=again)
        self._alert()

    def _alert(self) -> None:
        alerts, outbox = self.settings.alerts, Outbox(self.store.engine, lambda: self.store.now)
        if not alerts.wanted:
            return
        if alerts.stalled and (since := self.health.stalled_since()) is not None and not self._was_set():
            outbox.put([_stalled(since)])
        taken, left = deliver(outbox, Teller(self.settings))
        if taken or left:
            _log.info("alerts", sent=taken, failed=left)

    def _was_set(self) -> bool:
        """Whether the clock was set since this look began: nothing is concluded from it then."""
        self._moved += self.jumps.look()
        return bool(self._moved)

    def _queue(self) -> JobQueue:
        return JobQueue(self.store.engine, lambda: self.store.now)


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
