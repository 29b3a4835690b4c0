"""Rate limits as the Hub announces them: a fixed window per bucket, told in two headers on every response."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

_MICRO = 1_000_000
"""Time is counted in whole microseconds: sums of floats would open a window one request too late."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Requests allowed in a window. The defaults are the Hub's largest plan, which a demo does not use up."""

    api: int = 100_000
    resolvers: int = 500_000
    window_seconds: int = 300


@dataclass(frozen=True, slots=True)
class WindowUse:
    """How much of one bucket was used in one window."""

    window: int
    """0 for the window that began when the hub started, 1 for the next, and so on."""
    bucket: str
    admitted: int
    refused: int
    """Requests beyond the quota."""


class RateLimiter:
    """Counts requests by bucket (`api`, `resolvers`) in fixed windows, one after the other without a gap.

    Args:
        quota: how many are let through.
        clock: seconds from any beginning, never decreasing; a test can share its own with the client.
    """

    def __init__(self, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        self._quota = quota
        self._clock = clock
        self._started = clock()
        self._used: Counter[tuple[int, str]] = Counter()
        self._lock = Lock()

    @property
    def windows(self) -> tuple[WindowUse, ...]:
        """Every window and bucket with a request, in order."""
        with self._lock:
            used = sorted(self._used.items())
        return tuple(
            WindowUse(window, bucket, min(count, self._limit(bucket)), max(count - self._limit(bucket), 0))
            for (window, bucket), count in used
        )

    def admit(self, bucket: str) -> tuple[bool, tuple[tuple[str, str], ...]]:
        """Whether one more request is within the quota, and the headers that tell what is left."""
        limit, span = self._limit(bucket), self._quota.window_seconds * _MICRO
        with self._lock:
            window, elapsed = divmod(round((self._clock() - self._started) * _MICRO), span)
            self._used[window, bucket] += 1
            left = limit - self._used[window, bucket]
        reset = -(-(span - elapsed) // _MICRO)
        policy = f'"fixed window";"{bucket}";q={limit};w={self._quota.window_seconds}'
        return left >= 0, (
            ("RateLimit", f'"{bucket}";r={max(left, 0)};t={reset}'),
            ("RateLimit-Policy", policy),
        )

    def _limit(self, bucket: str) -> int:
        return self._quota.resolvers if bucket == "resolvers" else self._quota.api
