"""Keeps to the Hub's rate limits by what it announces, so that nobody runs into a 429.

Every answer of the Hub tells, for the bucket it was counted in, how many requests remain (`r`) and in how
many seconds the window ends (`t`). One `Governor` serves all threads of a client; `admit` returns when a
request may be sent and `settle` reports how that ended.

What holds, for a server that counts as it says:

(1) Never more than announced: at any time (what the newest answer says remains) − (requests on their way) −
    (requests that ended without an answer) ≥ 0. A request on its way may or may not be in `r` already; it
    counts as not, which can cost a wait for that answer, never one for the window.
(2) Never a wait for the window while something is known to remain in it.
(3) A wait lasts until the window's end as the answers bound it, `t` + 1 s after one arrived at the latest
    (both clocks count whole seconds), and one thread waits for all.
(4) What the Hub says wins over our count: other processes may use the same token. At the start of each
    window one request goes alone, and its answer says what is left.

A server that announces nothing is not governed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition

MAX_WAIT = 310.0
"""Seconds: the Hub's windows last five minutes, so no honest server asks for more."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One answer's `RateLimit` and `RateLimit-Policy`."""

    remaining: int
    """Requests left in the window."""
    reset: int
    """Seconds to the window's end, rounded by the server in whichever direction."""
    limit: int | None = None
    """Requests in a whole window."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that was admitted."""

    bucket: str
    number: int
    """Counts up over the bucket's requests, in the order of admission."""
    sent: float
    """Clock time of admission."""


@dataclass(slots=True)
class _Window:
    """What the answers so far tell about the present window; it ends between `earliest` and `latest`."""

    remaining: int
    earliest: float
    latest: float
    horizon: int
    """Requests from this number on were admitted after `remaining` was told, so their answers are newer."""


class _Bucket:
    """One bucket. All under the governor's lock."""

    def __init__(self) -> None:
        self.window: _Window | None = None
        self.limit: int | None = None
        self.silent = False
        """The server answers without announcing a limit."""
        self.next = 0
        self.flying = 0
        self.probe: int | None = None
        """The request that goes alone to ask what is left."""
        self.lost: list[int] = []
        """Ends without news, each with the number of the first request admitted after it."""
        self.sleeping = False

    def may_send(self) -> bool:
        if self.window is not None:
            return self.window.remaining - self.flying - len(self.lost) > 0
        # those on their way since the last window may be counted in this one
        return self.silent or (self.probe is None and self.flying < (self.limit or 1))

    def send(self, bucket: str, now: float) -> Ticket:
        ticket = Ticket(bucket, self.next, now)
        if self.window is None and not self.silent:
            self.probe = ticket.number
        self.next += 1
        self.flying += 1
        return ticket

    def forget_window(self) -> None:
        self.window = None
        self.lost.clear()

    def learn(self, ticket: Ticket, told: RateLimit, now: float) -> None:
        """Take in an answer, unless it is about a window that is over."""
        self.silent = False
        self.limit = told.limit
        reset = min(told.reset, MAX_WAIT - 1)
        earliest, latest = ticket.sent + reset - 1, now + reset + 1
        known = self.window
        if known is not None and latest < known.earliest:
            return
        if known is None or earliest > known.latest:
            self.window = _Window(told.remaining, earliest, latest, self.next)
        else:
            # of two answers to requests that overlapped, the server counted the lower one later
            if ticket.number >= known.horizon or told.remaining < known.remaining:
                known.remaining, known.horizon = told.remaining, self.next
            known.earliest = max(known.earliest, earliest)
            known.latest = min(known.latest, latest)
        self.lost = [mark for mark in self.lost if mark > ticket.number]


class Governor:
    """The rate limits of one Hub, by bucket. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """Know nothing yet.

        Args:
            clock: seconds, never going back.
            sleep: waits that many seconds of that clock.
        """
        self._clock = clock
        self._sleep = sleep
        self._changed = Condition()
        self._buckets: dict[str, _Bucket] = {}

    def admit(self, bucket: str) -> Ticket:
        """Wait until a request may be sent; each ticket must be settled, whatever becomes of the request."""
        while True:
            with self._changed:
                state = self._buckets.setdefault(bucket, _Bucket())
                now = self._clock()
                if state.window is not None and now >= state.window.latest:
                    state.forget_window()
                if state.may_send():
                    return state.send(bucket, now)
                wait = math.inf if state.window is None else state.window.latest - now
                if state.sleeping or state.flying:
                    # an answer on its way may tell of more, or the thread that sleeps will wake us
                    self._changed.wait(None if state.sleeping or wait == math.inf else wait)
                    continue
                state.sleeping = True
            self._sleep_out(state, wait)

    def settle(self, ticket: Ticket, told: RateLimit | None, *, answered: bool) -> None:
        """Report how a request ended.

        Args:
            ticket: from `admit`.
            told: what the answer announces.
            answered: the Hub itself answered; otherwise nobody knows whether the request was counted.
        """
        with self._changed:
            state = self._buckets[ticket.bucket]
            state.flying -= 1
            if state.probe == ticket.number:
                state.probe = None
            if told is not None:
                state.learn(ticket, told, self._clock())
            elif state.window is not None:
                state.lost.append(state.next)
            elif answered:
                state.silent = True
            self._changed.notify_all()

    def _sleep_out(self, state: _Bucket, wait: float) -> None:
        """Wait for the end of the window, for every thread."""
        window = state.window
        slept = False
        try:
            self._sleep(wait)
            slept = True
        finally:
            with self._changed:
                state.sleeping = False
                if slept and state.window is window:
                    state.forget_window()
                self._changed.notify_all()
