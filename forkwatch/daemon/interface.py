"""What the supervisor needs of whatever runs the workers: processes here, or tasks on a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from forkwatch.jobs.interface import Role

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


class Workers(Protocol):
    """Keeps a worker in each slot. It holds nothing that matters: jobs are in the database."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The workers that should run."""
        ...

    def tend(self) -> None:
        """Start what is not running; called about once a second, and must not wait."""
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
