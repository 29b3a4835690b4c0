"""Rate limits as the Hub announces them: a fixed window per bucket, told in two headers on every response."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True, slots=True)
class Quota:
    """Requests allowed in a window. The defaults are the Hub's largest plan, which a demo does not use up."""

    api: int = 100_000
    resolvers: int = 500_000
    window_seconds: int = 300


class RateLimiter:
    """Counts requests by bucket (`api`, `resolvers`) in fixed windows."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._used: Counter[str] = Counter()
        self._opened = time.monotonic()
        self._lock = Lock()

    def admit(self, bucket: str) -> tuple[bool, tuple[tuple[str, str], ...]]:
        """Whether one more request is within the quota, and the headers that tell what is left."""
        limit = self._quota.resolvers if bucket == "resolvers" else self._quota.api
        with self._lock:
            now = time.monotonic()
            if now - self._opened >= self._quota.window_seconds:
                self._used.clear()
                self._opened = now
            self._used[bucket] += 1
            left = limit - self._used[bucket]
            reset = math.ceil(self._quota.window_seconds - (now - self._opened))
        policy = f'"fixed window";"{bucket}";q={limit};w={self._quota.window_seconds}'
        return left >= 0, (
            ("RateLimit", f'"{bucket}";r={max(left, 0)};t={reset}'),
            ("RateLimit-Policy", policy),
        )
