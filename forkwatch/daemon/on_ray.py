"""Workers as tasks on a Ray cluster (extra `ray`): placed by GPU, started again where a node is left.

Ray holds nothing that matters. A task runs the same loop as `forkwatch worker` and talks to the database
itself, so every node needs PostgreSQL within reach and the state folder. It is handed the daemon's settings,
the database's password among them. A node that dies takes leases with it; they run out, and the jobs are
done elsewhere.

Ray runs any code that reaches its ports: tokens are on (not encryption), its dashboard and its usage
statistics are off. All of that must be set before `ray` is imported.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from forkwatch.daemon.interface import Slot, Turn
from forkwatch.errors import SettingsError
from forkwatch.jobs.interface import Role
from forkwatch.settings import Settings, hand_over

_log = structlog.get_logger("forkwatch.daemon")

ANSWER_SECONDS = 40.0
"""In which a cluster must have answered; Ray itself tries for many minutes. Less than the unit's watchdog."""


def connect(address: str) -> Any:
    """The `ray` module, connected to a running cluster.

    Raises:
        SettingsError: Ray is not installed, or no cluster answers there.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise SettingsError("Ray is not installed", tip="pip install 'forkwatch[ray]'") from error
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _no_cluster(address, str(error)) from error
    return ray


def require_cluster(address: str) -> None:
    """See that a cluster answers, from another process: this one may be connected to another cluster.

    Raises:
        SettingsError: Ray is not installed, or no cluster answers there.
    """
    command = [sys.executable, "-m", "forkwatch.daemon.on_ray", address]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _no_cluster(address, f"nothing within {ANSWER_SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise SettingsError(done.stdout.decode("utf-8", "replace").strip() or f"{command} failed")


def _no_cluster(address: str, reason: str) -> SettingsError:
    return SettingsError(f"no Ray cluster answers at {address}: {reason}", tip="See docs/operations.md.")


def run_role(role: str, handed: str) -> int:
    """What a task does on its node: a worker of one role, with the daemon's settings."""
    from forkwatch import logs
    from forkwatch.daemon.work import Shift, work
    from forkwatch.settings import take_over

    logs.configure()
    settings = take_over(handed)
    shift = Shift(roles=(Role(role),), max_jobs=settings.daemon.jobs_per_process)
    return work(settings, shift, lambda _: None)


@dataclass(slots=True)
class _Task:
    slot: Slot
    turn: Turn = field(default_factory=Turn)
    ref: Any = None
    told: bool = False
    """To end after its job."""


@dataclass(slots=True)
class RayWorkers:
    """Keeps a task for each slot on the cluster."""

    ray: Any
    settings: Settings
    wanted: Sequence[Slot]
    run: Callable[[str, str], int] = run_role
    _tasks: list[_Task] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tasks = [_Task(slot) for slot in self.wanted]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The workers that should run."""
        return tuple(self.wanted)

    def tend(self) -> None:
        """Submit what is not running. Ray retries nothing: that is the queue's business."""
        now = time.monotonic()
        for task in self._tasks:
            if task.ref is not None and self._is_over(task.ref):
                task.turn.ended(now, well=task.told or not self._died(task))
                task.ref, task.told = None, False
            if task.ref is None and now >= task.turn.again_at:
                task.ref, task.turn.began = self._submit(task.slot), now

    def renew(self, settings: Settings, wanted: Sequence[Slot]) -> None:
        """Workers give their job back; those that follow get these settings."""
        here = {task.slot: task for task in self._tasks}
        for task in here.values():
            if task.ref is not None:
                self.ray.cancel(task.ref, force=False)
                task.told = True
        self.settings, self.wanted = settings, wanted
        self._tasks = [here.get(slot) or _Task(slot) for slot in wanted]

    def stop(self, grace: float) -> None:
        """Interrupt all, where a worker gives its job back, and leave the cluster: another may be next."""
        refs = [task.ref for task in self._tasks if task.ref is not None]
        for ref in refs:
            self.ray.cancel(ref, force=False)
        if refs:
            self.ray.wait(refs, num_returns=len(refs), timeout=grace + 5.0)
        self.kill()
        self.ray.shutdown()

    def kill(self) -> None:
        """End all at once."""
        for task in self._tasks:
            if task.ref is not None:
                self.ray.cancel(task.ref, force=True)
            task.ref = None

    def alive(self) -> Mapping[str, bool]:
        """By the name of the slot; a task that waits for a node counts."""
        return {task.slot.name: task.ref is not None and not self._is_over(task.ref) for task in self._tasks}

    def _submit(self, slot: Slot) -> Any:
        on_gpu = slot.role is Role.EVAL and self.settings.evaluation.device != "cpu"
        gpus = self.settings.daemon.ray_gpus_each if on_gpu else 0.0  # Ray sets CUDA_VISIBLE_DEVICES
        task = self.ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(self.run)
        return task.remote(slot.role.value, hand_over(self.settings))

    def _is_over(self, ref: Any) -> bool:
        return bool(self.ray.wait([ref], timeout=0)[0])

    def _died(self, task: _Task) -> bool:
        try:
            self.ray.get(task.ref)
        except Exception as error:  # noqa: BLE001 - whatever ended it, another is started
            _log.warning("worker died", worker=task.slot.name, error=str(error)[:300])
            return True
        return False


def main() -> None:
    """Connect to a cluster and leave; the reason why not goes to stdout."""
    try:
        connect(sys.argv[1])
    except SettingsError as error:
        sys.stdout.write(str(error))
        sys.exit(error.code)


if __name__ == "__main__":
    main()
