"""Two clocks: the wall's, for leases and schedules, and the one that results are dated by."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from forkwatch.errors import SettingsError

FIXED = "FORKWATCH_CLOCK"
"""An ISO 8601 time in UTC that all results get, so that two runs can be compared byte by byte.

What an attempt measured of itself is held still with it: a result then cost nothing, since how often a file
had to be fetched, and how long that took, is of the run and not of the fork."""


def wall_clock() -> datetime:
    """The time, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def is_held() -> bool:
    """Whether results get a fixed time, and no measured cost."""
    return bool(os.environ.get(FIXED))


def result_clock() -> datetime:
    """What is stored with a result and printed: the time, unless FORKWATCH_CLOCK holds it still.

    Raises:
        SettingsError: FORKWATCH_CLOCK is no time with a zone.
    """
    fixed = os.environ.get(FIXED)
    if not fixed:
        return wall_clock()
    try:
        at = datetime.fromisoformat(fixed)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise SettingsError(f"{FIXED} is no time: {fixed!r}", tip="Like 2026-11-30T12:00:00+00:00.")
    return at.astimezone(UTC).replace(microsecond=0)


JUMP = timedelta(minutes=1)
"""What a clock is slewed by, or two looks take, is less."""


@dataclass(slots=True)
class Jumps:
    """Notices that the wall's clock was set, or stood still while the machine slept."""

    now: Callable[[], datetime] = wall_clock
    steady: Callable[[], float] = time.monotonic
    _zero: datetime = field(init=False)

    def __post_init__(self) -> None:
        self._zero = self._offset()

    def look(self) -> timedelta:
        """By how much it was set since the last look; negative is backwards, under a minute is nothing."""
        before, self._zero = self._zero, self._offset()
        moved = self._zero - before
        return moved if abs(moved) >= JUMP else timedelta(0)

    def _offset(self) -> datetime:
        return self.now() - timedelta(seconds=self.steady())
