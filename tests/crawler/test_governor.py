from __future__ import annotations

import math
import random
import threading
import time as real_time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.client import HubClient
from crawler.errors_map import rate_limit
from crawler.governor import MAX_WAIT, Governor, RateLimit
from forkwatch.demo.hub import LoopbackHub, Quota
from tests.crawler.conftest import REPO, VirtualTime


class Server:
    """Fixed windows of `seconds` with `limit` requests each, announced in whole seconds."""

    def __init__(self, time: VirtualTime, limit: int, seconds: float, *, up: bool = True) -> None:
        self.time, self.limit, self.seconds = time, limit, seconds
        self.round = math.ceil if up else math.floor
        self.lock = threading.Lock()
        self.window, self.used, self.refused = 0, 0, 0

    def _roll(self) -> float:
        """Seconds to the window's end."""
        window = int(self.time.clock() // self.seconds)
        if window != self.window:
            self.window, self.used = window, 0
        return (window + 1) * self.seconds - self.time.clock()

    def left(self) -> int:
        with self.lock:
            self._roll()
            return max(self.limit - self.used, 0)

    def ask(self) -> RateLimit:
        with self.lock:
            ends = self._roll()
            self.used += 1
            self.refused += self.used > self.limit
            return RateLimit(max(self.limit - self.used, 0), self.round(ends), self.limit)


class WatchedTime(VirtualTime):
    """Notes what the server had left when somebody went to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.server: Server | None = None
        self.left: list[int] = []

    def sleep(self, seconds: float) -> None:
        if self.server is not None:
            self.left.append(self.server.left())
        super().sleep(seconds)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [1, 2, 7, 30])
def test_threads_together_never_exceed_the_quota_and_never_wait_needlessly(limit: int, seed: int) -> None:
    """Eight threads, answers in any order: no request too many, no wait while something remains."""
    time = WatchedTime()
    server = time.server = Server(time, limit, 300)
    governor = Governor(clock=time.clock, sleep=time.sleep)
    rng = random.Random(seed)

    def work(pauses: list[float]) -> None:
        for before, after in zip(pauses[::2], pauses[1::2], strict=True):
            ticket = governor.admit("api")
            real_time.sleep(before)
            told = server.ask()
            real_time.sleep(after)
            governor.settle(ticket, told, answered=True)

    plans = [[rng.choice((0, 0, 0.001)) for _ in range(20)] for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, plans))
    assert server.refused == 0
    assert set(time.left) <= {0}
    assert len(time.waits) == (80 - 1) // limit
    assert all(0 < wait <= 301 for wait in time.waits)


@given(
    limit=st.integers(1, 5),
    seconds=st.sampled_from([1, 7, 300]),
    up=st.booleans(),
    steps=st.lists(
        st.tuples(st.floats(0, 20), st.floats(0, 3), st.floats(0, 3), st.booleans(), st.integers(0, 3)),
        max_size=60,
    ),
)
def test_one_thread_waits_exactly_when_nothing_remains(
    limit: int, seconds: int, up: bool, steps: list[tuple[float, float, float, bool, int]]
) -> None:
    """Whatever the delays, the rounding, lost answers and other users of the token.

    A wait is never begun while the last answer leaves something, never longer than the announced time and a
    second; a request is only ever refused when somebody else has used the rest since the last answer, or when
    every answer of this window so far got lost.
    """
    time = VirtualTime()
    server = Server(time, limit, seconds, up=up)
    governor = Governor(clock=time.clock, sleep=time.sleep)
    last: RateLimit | None = None
    others = lost = 0
    heard = -1
    for idle, there, back, answered, stranger in steps:
        time.now += idle
        waits = len(time.waits)
        ticket = governor.admit("api")
        if len(time.waits) > waits:
            assert last is not None
            assert last.remaining - lost <= 0
            assert time.waits[-1] <= last.reset + 1 + 1e-6  # floats
            others = 0  # a new window: what they used of it is in the next answer
        time.now += there
        refused = server.refused
        told = server.ask()
        assert server.refused == refused or others or heard != server.window
        counted = server.window
        time.now += back
        governor.settle(ticket, told if answered else None, answered=answered)
        if answered:
            last, others, lost, heard = told, 0, 0, counted
        else:
            lost += 1
        if stranger and server.left() >= stranger:
            for _ in range(stranger):
                server.ask()
            others += stranger


def test_before_the_first_answer_one_request_goes_alone() -> None:
    """The others wait for what it learns, then go as far as that allows."""
    time = VirtualTime()
    governor = Governor(clock=time.clock, sleep=time.sleep)
    first = governor.admit("api")
    admitted = threading.Semaphore(0)

    def follow() -> None:
        governor.admit("api")
        admitted.release()

    threads = [threading.Thread(target=follow, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert not admitted.acquire(timeout=0.2)
    governor.settle(first, RateLimit(2, 60, 3), answered=True)
    assert admitted.acquire(timeout=5)
    assert admitted.acquire(timeout=5)
    assert not admitted.acquire(timeout=0.2)
    assert time.waits == []


def test_in_a_new_window_one_request_goes_alone_again() -> None:
    """Another process may have used it up already, so nothing is known until an answer tells."""
    time = VirtualTime()
    governor = Governor(clock=time.clock, sleep=time.sleep)
    governor.settle(governor.admit("api"), RateLimit(2, 60, 3), answered=True)
    time.now += 100
    probe = governor.admit("api")
    admitted = threading.Event()

    def follow() -> None:
        governor.admit("api")
        admitted.set()

    threading.Thread(target=follow, daemon=True).start()
    assert not admitted.wait(0.2)
    governor.settle(probe, RateLimit(1, 60, 3), answered=True)
    assert admitted.wait(5)


def test_what_the_hub_says_wins_over_our_own_count() -> None:
    """Another process has used the token: what it took is gone for us as well; what was given is ours."""
    time = VirtualTime()
    governor = Governor(clock=time.clock, sleep=time.sleep)
    governor.settle(governor.admit("api"), RateLimit(400, 100), answered=True)
    governor.settle(governor.admit("api"), RateLimit(0, 99), answered=True)
    governor.settle(governor.admit("api"), RateLimit(9, 100), answered=True)
    assert time.waits == [100.0]
    governor.settle(governor.admit("api"), RateLimit(500, 99), answered=True)
    for _ in range(500):
        governor.settle(governor.admit("api"), None, answered=False)
    assert time.waits == [100.0]


def test_buckets_do_not_know_of_each_other() -> None:
    """An exhausted API leaves the resolvers alone."""
    time = VirtualTime()
    governor = Governor(clock=time.clock, sleep=time.sleep)
    governor.settle(governor.admit("api"), RateLimit(0, 100), answered=True)
    governor.settle(governor.admit("resolvers"), RateLimit(5, 100), answered=True)
    governor.admit("resolvers")
    assert time.waits == []


def test_server_that_announces_nothing_is_not_governed() -> None:
    """After its first answer any number may be on their way."""
    time = VirtualTime()
    governor = Governor(clock=time.clock, sleep=time.sleep)
    governor.settle(governor.admit("api"), None, answered=True)
    for _ in range(100):
        governor.admit("api")
    assert time.waits == []


def test_answer_of_an_older_window_changes_nothing() -> None:
    """A straggler that arrives after the new window has begun tells of the old one."""
    time = VirtualTime()
    governor = Governor(clock=time.clock, sleep=time.sleep)
    governor.settle(governor.admit("api"), RateLimit(3, 2, 4), answered=True)
    straggler = governor.admit("api")
    time.now += 4
    governor.settle(governor.admit("api"), RateLimit(3, 300, 4), answered=True)
    governor.settle(straggler, RateLimit(0, 1, 4), answered=True)
    for _ in range(3):
        governor.settle(governor.admit("api"), None, answered=False)
    assert time.waits == []


def test_absurd_reset_is_capped_at_one_window() -> None:
    """No server can make us wait for longer than the Hub's longest window."""
    time = VirtualTime()
    governor = Governor(clock=time.clock, sleep=time.sleep)
    governor.settle(governor.admit("api"), RateLimit(0, 10**9), answered=True)
    governor.admit("api")
    assert time.waits == [MAX_WAIT]


def test_interrupted_sleep_lets_the_next_thread_sleep() -> None:
    """Ctrl-C in the thread that waits for all does not leave the others waiting for it."""
    time = VirtualTime()
    broken = True

    def sleep(seconds: float) -> None:
        if broken:
            raise KeyboardInterrupt
        time.sleep(seconds)

    governor = Governor(clock=time.clock, sleep=sleep)
    governor.settle(governor.admit("api"), RateLimit(0, 10), answered=True)
    with pytest.raises(KeyboardInterrupt):
        governor.admit("api")
    broken = False
    governor.admit("api")
    assert time.waits == [11.0]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"RateLimit": '"api";r=497;t=168'}, RateLimit(497, 168)),
        (
            {"ratelimit": '"api";r=497;t=168', "ratelimit-policy": '"fixed window";"api";q=500;w=300'},
            RateLimit(497, 168, 500),
        ),
        ({"RateLimit": "soon"}, None),
        ({"RateLimit": '"api";r=-1;t=5'}, None),
        ({"RateLimit": f'"api";r={"9" * 5000};t=5'}, None),
    ],
)
def test_headers_are_read_or_ignored(headers: dict[str, str], expected: RateLimit | None) -> None:
    """Nonsense announces nothing, and raises nothing."""
    assert rate_limit(headers) == expected


def test_quota_of_a_real_server_is_never_crossed(tmp_path: Path) -> None:
    """Four threads over sockets, three windows, no second attempt allowed: no 429 ever comes back."""
    with LoopbackHub(quota=Quota(api=5, window_seconds=1)) as hub:
        hub.create_repo(REPO)
        with HubClient(endpoint=hub.endpoint, token=None, cache=tmp_path, retries=0) as client:
            start = real_time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                rows = list(pool.map(lambda _: client.summary(REPO), range(12)))
            assert {row.repo for row in rows} == {REPO}
            assert client.cost.api == len(hub.requests) == 12
            assert 2 <= real_time.monotonic() - start < 10
