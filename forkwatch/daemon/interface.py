"""What the supervisor needs of whatever runs the workers: processes here, or tasks on a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from forkwatch.jobs.interface import Role
from forkwatch.settings import Settings

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a worker that died is started again; doubled each time that it dies young."""
YOUNG = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker that should run."""

    role: Role
    number: int
    gpu: int | None = None
    """The only GPU of this machine that it sees; None: all. Ray chooses for itself."""

    @property
    def name(self) -> str:
        """For logs."""
        return f"{self.role}-{self.number}"


@dataclass(slots=True)
class Turn:
    """When the worker of a slot is started again after it has ended."""

    began: float = 0.0
    again_at: float = 0.0
    _pause: float = FIRST_PAUSE

    def ended(self, now: float, *, well: bool) -> float:
        """It has ended; for how many seconds it stays so. One that did its jobs is replaced at once."""
        young = not well and now - self.began < YOUNG
        self._pause = min(self._pause * 2, LONGEST_PAUSE) if young else FIRST_PAUSE
        wait = 0.0 if well else self._pause
        self.again_at = now + wait
        return wait


class Workers(Protocol):
    """Keeps a worker in each slot. It holds nothing that matters: jobs are in the database."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The workers that should run."""
        ...

    def tend(self) -> None:
        """Start what is not running; called about once a second, and must not wait."""
        ...

    def renew(self, settings: Settings, wanted: Sequence[Slot]) -> None:
        """Give new work to workers with these settings: the present ones end after their job."""
        ...

    def stop(self, grace: float) -> None:
        """Tell all to stop after their job, and end those that are still there after the grace (seconds)."""
        ...

    def kill(self) -> None:
        """End all at once."""
        ...

    def alive(self) -> Mapping[str, bool]:
        """By the name of the slot."""
        ...
