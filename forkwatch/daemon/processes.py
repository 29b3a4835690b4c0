"""Worker processes: started, watched, replaced, and told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from forkwatch.daemon.interface import FIRST_PAUSE, LONGEST_PAUSE, YOUNG, Slot

_log = structlog.get_logger("forkwatch.daemon")


@dataclass(slots=True)
class _Running:
    slot: Slot
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    pause: float = FIRST_PAUSE
    again_at: float = 0.0


@dataclass(slots=True)
class Processes:
    """Keeps one process of this machine in each slot."""

    command: Sequence[str]
    """Of a worker, before `--role`."""
    wanted: Sequence[Slot]
    _running: list[_Running] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._running = [_Running(slot) for slot in self.wanted]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The workers that should run."""
        return tuple(self.wanted)

    def tend(self) -> None:
        """Start what is not running; called about once a second."""
        now = time.monotonic()
        for each in self._running:
            if each.process is not None and (status := each.process.poll()) is not None:
                each.process = None
                if status == 0:  # it has done its number of jobs
                    each.pause, each.again_at = FIRST_PAUSE, now
                    continue
                young = now - each.began < YOUNG
                each.pause = min(each.pause * 2, LONGEST_PAUSE) if young else FIRST_PAUSE
                each.again_at = now + each.pause
                _log.warning("worker died", worker=each.slot.name, status=status, again_in=each.pause)
            if each.process is None and now >= each.again_at:
                each.process, each.began = self._start(each.slot), now

    def stop(self, grace: float) -> None:
        """Tell all to stop after their job; kill those that are still there after the grace."""
        self.signal(signal.SIGTERM)
        until = time.monotonic() + grace + 5.0  # they give their job back themselves when the grace is over
        for each in self._running:
            if each.process is None:
                continue
            with suppress(subprocess.TimeoutExpired):
                each.process.wait(max(0.1, until - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End all at once, with what they have started."""
        for each in self._running:
            if each.process is not None and each.process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(each.process.pid, signal.SIGKILL)
                each.process.wait()
            each.process = None

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on to the workers themselves, not to what they have started."""
        for each in self._running:
            if each.process is not None and each.process.poll() is None:
                each.process.send_signal(number)

    def alive(self) -> Mapping[str, bool]:
        """By slot."""
        return {
            each.slot.name: each.process is not None and each.process.poll() is None for each in self._running
        }

    def _start(self, slot: Slot) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(slot.gpu)
        # A session of its own: Ctrl-C in a terminal is for the daemon, which tells the workers.
        return subprocess.Popen(
            [*self.command, "--role", slot.role.value],
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )


def worker_command() -> list[str]:
    """This program, as a worker that ends when its daemon does."""
    return [sys.executable, "-m", "forkwatch", "worker", "--parent", str(os.getpid())]
