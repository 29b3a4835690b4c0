"""Worker processes: started, watched, replaced, and told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from forkwatch.daemon.interface import Slot, Turn
from forkwatch.settings import Settings, hand_over

_log = structlog.get_logger("forkwatch.daemon")

PATIENCE = 5.0
"""Seconds after the grace, in which a worker gives its job back by itself."""


@dataclass(slots=True)
class _Running:
    slot: Slot
    turn: Turn = field(default_factory=Turn)
    process: subprocess.Popen[bytes] | None = None
    kill_at: float | None = None
    """It was told to end; when that is over."""

    def lives(self) -> bool:
        """Its process runs."""
        return self.process is not None and self.process.poll() is None


@dataclass(slots=True)
class Processes:
    """Keeps one process of this machine in each slot."""

    command: Sequence[str]
    """Of a worker, before `--role`. It reads its settings from its standard input."""
    settings: Settings
    wanted: Sequence[Slot]
    _running: list[_Running] = field(default_factory=list)
    _leaving: list[_Running] = field(default_factory=list)
    """In slots that are wanted no more."""

    def __post_init__(self) -> None:
        self._running = [_Running(slot) for slot in self.wanted]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The workers that should run."""
        return tuple(self.wanted)

    def tend(self) -> None:
        """Start what is not running; called about once a second."""
        now = time.monotonic()
        for each in (*self._running, *self._leaving):
            if each.kill_at is not None and now > each.kill_at and each.lives():
                _kill(each)
        self._leaving = [each for each in self._leaving if each.lives()]
        for each in self._running:
            if each.process is not None and (status := each.process.poll()) is not None:
                well = status == 0 or each.kill_at is not None  # it has done its number of jobs, or was told
                wait = each.turn.ended(now, well=well)
                each.process, each.kill_at = None, None
                if not well:
                    _log.warning("worker died", worker=each.slot.name, status=status, again_in=wait)
            if each.process is None and now >= each.turn.again_at:
                each.process, each.turn.began = self._start(each.slot), now

    def renew(self, settings: Settings, wanted: Sequence[Slot]) -> None:
        """Workers end after their job, or give it back after the grace; those that follow get these settings.

        A slot is filled anew when its worker has ended: two evaluators do not fit on one GPU.
        """
        kill_at = time.monotonic() + self.settings.daemon.grace_seconds + PATIENCE
        self.signal(signal.SIGTERM)
        here = {each.slot: each for each in self._running}
        for each in here.values():
            each.kill_at = kill_at if each.lives() else None
        self.settings, self.wanted = settings, wanted
        self._running = [here.get(slot, _Running(slot)) for slot in wanted]
        self._leaving += [each for slot, each in here.items() if slot not in wanted]

    def stop(self, grace: float) -> None:
        """Tell all to stop after their job; kill those that are still there after the grace."""
        self.signal(signal.SIGTERM)
        until = time.monotonic() + grace + PATIENCE
        for each in self._all():
            if each.process is not None:
                with suppress(subprocess.TimeoutExpired):
                    each.process.wait(max(0.1, until - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End all at once, with what they have started."""
        for each in self._all():
            if each.lives():
                _kill(each)
            each.process = None

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on to the workers themselves, not to what they have started."""
        for each in self._all():
            if each.process is not None and each.lives():
                each.process.send_signal(number)

    def alive(self) -> Mapping[str, bool]:
        """By slot."""
        return {each.slot.name: each.lives() for each in self._running}

    def _all(self) -> tuple[_Running, ...]:
        return (*self._running, *self._leaving)

    def _start(self, slot: Slot) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(slot.gpu)
        # A session of its own: Ctrl-C in a terminal is for the daemon, which tells the workers.
        process = subprocess.Popen(
            [*self.command, "--role", slot.role.value],
            stdin=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        # In a thread: a pipe holds 64 KiB, and a worker that does not read must not hold the daemon.
        threading.Thread(target=_feed, args=(process, hand_over(self.settings)), daemon=True).start()
        return process


def _feed(process: subprocess.Popen[bytes], text: str) -> None:
    with suppress(OSError):  # it died before it had read them; another is started
        if process.stdin is not None:
            with process.stdin as pipe:
                pipe.write(text.encode())


def _kill(each: _Running) -> None:
    """End a process with what it has started."""
    if each.process is not None:
        with suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.wait()


def worker_command() -> list[str]:
    """This program, as a worker that ends when its daemon does."""
    return [sys.executable, "-m", "forkwatch", "worker", "--handed", "--parent", str(os.getpid())]
