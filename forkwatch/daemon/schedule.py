"""What is asked for, and when. APScheduler only asks: each call is one row in the job table.

The job store is in memory: schedules are in the settings, and `schedule.asked_at` says what was missed while
nobody ran. A slot's job has the slot in its key, so two daemons, or one that was restarted, ask once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from forkwatch.clock import JUMP
from forkwatch.jobs.interface import NewJob, Role
from forkwatch.sections.running import DaemonSettings
from forkwatch.store.jobs import JobQueue
from forkwatch.store.schedules import Schedules

JITTER_SECONDS = 30
"""Boxes that were started together must not ask the Hub together."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks for the work of a slot."""

    queue: JobQueue
    schedules: Schedules
    releases: Callable[[], tuple[str, ...]]
    now: Callable[[], datetime]

    def crawl(self, every: timedelta) -> None:
        """Crawls of all guarded releases, once a slot."""
        slot = int(self.now().timestamp() // every.total_seconds())
        self.queue.enqueue(
            [
                NewJob(
                    kind="crawl",
                    key=f"crawl:{release}:{every.total_seconds():.0f}:{slot}",
                    role=Role.CRAWL,
                    payload={"release": release},
                )
                for release in self.releases()
            ]
        )
        self.schedules.asked("crawl")

    def digest(self) -> None:
        """The digest of the last week that is over, once."""
        from forkwatch.pipeline.mailing import last_week

        week = last_week(self.now())
        job = NewJob(
            kind="digest", key=f"digest:{week}", role=Role.PUBLISH, payload={"week": week}, max_attempts=10
        )
        self.queue.enqueue([job])
        self.schedules.asked("digest")

    def purge(self, after: timedelta) -> None:
        """Forget old finished jobs."""
        self.queue.purge(self.now() - after)
        self.schedules.asked("purge")


class Calendar:
    """The schedule, kept up while the clock may be set."""

    def __init__(self, settings: DaemonSettings, asker: Asker) -> None:
        self._settings, self._asker = settings, asker
        asked, now = asker.schedules.last_asked("crawl"), asker.now()
        if asked is not None and asked - now > JUMP:  # it was set back while nobody ran
            asker.queue.clock_went_back(asked - now)
        self._scheduler = start(settings, asker)

    def clock_was_set(self, by: timedelta) -> None:
        """Compute anew what was computed from the old one; ask for the crawl of the new one's slot."""
        if by < timedelta(0):
            self._asker.queue.clock_went_back(-by)
        before, self._scheduler = self._scheduler, start(self._settings, self._asker)
        before.shutdown(wait=False)

    def shutdown(self) -> None:
        """Ask for nothing more."""
        self._scheduler.shutdown(wait=False)


def start(settings: DaemonSettings, asker: Asker) -> BackgroundScheduler:
    """A running scheduler, in UTC. What was missed while nobody ran is asked for at once, and once."""
    scheduler = BackgroundScheduler(
        timezone="UTC",
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600},
    )
    every = timedelta(minutes=settings.crawl_every_minutes)
    jitter = min(JITTER_SECONDS, int(every.total_seconds() / 10)) or None
    now = asker.now()

    def add(name: str, trigger: Any, action: Callable[[], None]) -> None:
        scheduler.add_job(action, trigger, id=name)

    add(
        "crawl",
        IntervalTrigger(seconds=every.total_seconds(), jitter=jitter, timezone="UTC"),
        lambda: asker.crawl(every),
    )
    add(
        "purge",
        CronTrigger(hour=3, minute=17, timezone="UTC"),
        lambda: asker.purge(timedelta(days=settings.purge_after_days)),
    )
    asker.crawl(every)  # of this slot, if nobody has asked yet
    if settings.digest:
        add("digest", CronTrigger(day_of_week="mon", hour=6, minute=5, timezone="UTC"), asker.digest)
        asked = asker.schedules.last_asked("digest")
        if asked is not None and now - asked > timedelta(days=7):
            asker.digest()
    scheduler.start()
    return scheduler
