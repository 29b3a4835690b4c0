"""A worker: claims jobs, does them one after the other, and dies rather than hang.

A thread says every quarter of a lease that the worker lives. It ends the process when the lease is lost, or
when a job has run longer than it may: an evaluation that hangs in a driver cannot be stopped otherwise, and
whoever started the worker starts another.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from forkwatch.jobs.interface import LEASE, Job, JobState, NewJob, Role
from forkwatch.store.jobs import JobQueue

T = TypeVar("T")

Handler = Callable[[Job], Sequence[NewJob]]
"""Does a job; what is to be done next. What it raises is the job's failure."""

IDLE_SECONDS = 2.0
"""Between two looks at an empty queue."""
EXIT_HUNG = 70
"""Exit status of a worker that ended itself in the middle of a job."""


class Hopeless(Exception):  # noqa: N818 - a verdict on the job, not a fault of ours
    """The job cannot succeed, however often it is tried."""


class ElsewhereError(Exception):
    """The job failed in another process; the database may have been away for that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a worker works."""

    roles: tuple[Role, ...]
    owner: str
    """For people: host, process."""
    timeouts: Mapping[Role, float]
    """Seconds that a job of a role may take."""
    grace_seconds: float = 60.0
    """How long a job may go on after the worker was told to stop."""
    drain: bool = False
    """End when there is nothing to do."""
    max_jobs: int | None = None
    """End after so many: a process that has read hostile files for weeks is best replaced."""


class Watch(threading.Thread):
    """Keeps the lease of the present job, and ends the process where nothing else can."""

    def __init__(
        self, queue: JobQueue, options: WorkerOptions, end: Callable[[int], None] = os._exit
    ) -> None:
        super().__init__(name="lease", daemon=True)
        self._queue = queue
        self._options = options
        self._end = end
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._began = 0.0
        self._stop_at: float | None = None
        self._extended = 0.0

    def begin(self, job: Job) -> None:
        """A job begins."""
        with self._lock:
            self._job, self._began, self._extended = job, time.monotonic(), time.monotonic()

    def over(self) -> None:
        """It is over."""
        with self._lock:
            self._job = None

    def stop_soon(self) -> None:
        """The worker was told to stop: the present job has `grace_seconds` left."""
        self._stop_at = time.monotonic() + self._options.grace_seconds

    def run(self) -> None:
        """Look twice a second; say that we live every quarter of a lease."""
        while True:
            time.sleep(0.5)
            with self._lock:
                self._look(time.monotonic())

    def _look(self, now: float) -> None:
        job = self._job
        if job is None:
            return
        if self._stop_at is not None and now > self._stop_at:
            with suppress(DBAPIError):
                self._queue.give_back(job)
            self._end(EXIT_HUNG)
        if now - self._began > self._options.timeouts[job.role]:
            with suppress(DBAPIError):
                self._queue.fail(job, f"took longer than {self._options.timeouts[job.role]:.0f} s")
            self._end(EXIT_HUNG)
        if now - self._extended > LEASE.total_seconds() / 4:
            self._extended = now
            try:
                if not self._queue.extend(job):
                    self._end(EXIT_HUNG)
            except DBAPIError:  # a database that is away for a moment: the lease lasts longer. Soon again
                self._extended += IDLE_SECONDS - LEASE.total_seconds() / 4


@dataclass(slots=True)
class Worker:
    """The loop."""

    queue: JobQueue
    handlers: Mapping[str, Handler]
    options: WorkerOptions
    watch: Watch
    told: Callable[[Job, JobState | None, float], None] = lambda *_: None
    """Told of each job that ended: its new state (None: the lease was lost), and seconds."""
    unfit: Callable[[], str | None] = lambda: None
    """Why this machine can do no job now, such as a full disk; None: it can."""
    stopping: threading.Event = field(default_factory=threading.Event)
    _count: int = field(default=0, init=False)
    _claimed: Job | None = field(default=None, init=False)
    """The next job, claimed with the end of the one before."""

    def stop(self) -> None:
        """End after the present job."""
        self.stopping.set()
        self.watch.stop_soon()

    def run(self) -> int:
        """Work until told to stop; how many jobs were done or failed."""
        self.watch.start()
        while not self.stopping.is_set() and self._count != self.options.max_jobs:
            job = self._next()
            if job is None:
                if self.options.drain:
                    break
                self.stopping.wait(IDLE_SECONDS)
                continue
            began = time.monotonic()
            state = self._do(job)
            self.told(job, state, time.monotonic() - began)
            self._count += 1
        if self._claimed is not None:  # told to stop just then
            self.queue.give_back(self._claimed)
        return self._count

    def _next(self) -> Job | None:
        if self._claimed is not None:
            job, self._claimed = self._claimed, None
            return job
        if self.unfit() is not None:
            return None
        try:
            return self.queue.claim(self.options.roles, self.options.owner)
        except DBAPIError:
            if self.options.drain:
                raise
            return None  # the database is away: look again in a moment

    def _do(self, job: Job) -> JobState | None:
        self.watch.begin(job)
        try:
            handler = self.handlers.get(job.kind)
            if handler is None:
                return self.queue.fail(job, f"this version knows no job {job.kind!r}", final=True)
            then = handler(job)
        except KeyboardInterrupt:
            self.queue.give_back(job)
            raise
        except Hopeless as error:
            reason = str(error)
            return self._settled(job, lambda: self.queue.fail(job, reason, final=True))
        except Exception as error:  # noqa: BLE001 - whatever a fork makes our code do, the queue goes on
            return self._failed(job, error)
        else:
            done = self._settled(job, lambda: self._finish(job, then))
            return JobState.DONE if done else None
        finally:
            self.watch.over()

    def _finish(self, job: Job, then: Sequence[NewJob]) -> bool:
        """Where this worker goes on, its next job may be claimed by the way."""
        last = self.stopping.is_set() or self._count + 1 == self.options.max_jobs
        if last or self.unfit() is not None:
            return self.queue.finish(job, then)
        held, self._claimed = self.queue.finish_and_claim(job, then, self.options.roles, self.options.owner)
        return held

    def _failed(self, job: Job, error: Exception) -> JobState | None:
        """An attempt that is not counted where the machine or the database was the reason."""
        if self._is_ours(error):
            held = self._settled(job, lambda: self.queue.give_back(job))
            return JobState.QUEUED if held else None
        reason = str(error) if isinstance(error, ElsewhereError) else f"{type(error).__name__}: {error}"
        return self._settled(job, lambda: self.queue.fail(job, reason))

    def _is_ours(self, error: Exception) -> bool:
        if self.unfit() is not None:
            return True
        if not _is_away(error):
            return False
        try:
            self.queue.require_writable()
        except DBAPIError:
            return True
        return False

    def _settled(self, job: Job, say: Callable[[], T]) -> T | None:
        """Say what became of a job; a database that is away is waited for, as long as the job might take.

        The lease may be lost meanwhile: then nothing is kept, as always.
        """
        self.watch.over()
        end = time.monotonic() + self.options.timeouts[job.role]
        while True:
            try:
                return say()
            except DBAPIError as error:
                if not _is_away(error) or self.stopping.is_set() or time.monotonic() > end:
                    raise
            self.stopping.wait(IDLE_SECONDS)


def _is_away(error: Exception) -> bool:
    """The database does not answer, is locked or full, rather than was asked for something strange."""
    return isinstance(error, OperationalError | InterfaceError | ElsewhereError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )
