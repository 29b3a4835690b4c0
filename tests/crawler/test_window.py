"""A crawl under the Hub's rate limits: each window is used up, nothing is refused, no wait is in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from crawler.client import HubClient
from crawler.discover import default_sources, describe, discover
from crawler.interface import RepoId
from crawler.memory import InMemory
from forkwatch.demo.hub import LoopbackHub
from forkwatch.demo.hub.limits import Quota
from forkwatch.demo.population import RELEASE, populate

WINDOW = 300


class Clock:
    """Time that passes only while somebody sleeps: hub and client share it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("api", "repos", "forks"), [(60, 3_000, 150), (1_000, 20_000, 1_000)])
def test_crawl_uses_each_window_up_and_is_never_refused(
    api: int, repos: int, forks: int, tmp_path: Path
) -> None:
    """So many calls in five minutes, exactly: no 429, no window left half used while there was work to do."""
    clock = Clock()
    hub = LoopbackHub(quota=Quota(api=api, resolvers=10_000, window_seconds=WINDOW), clock=clock)
    truth = populate(hub, repos=repos, forks=forks, seed=1)
    memory = InMemory()
    with (
        hub,
        HubClient(
            endpoint=hub.endpoint, token=None, cache=tmp_path, clock=clock, sleep=clock.sleep, retries=0
        ) as client,
    ):
        target = describe(client, RepoId(RELEASE))
        discover(client, target, default_sources(), memory)
        windows = [use for use in hub.windows if use.bucket == "api"]

    assert truth.score(memory.members()).recall.rate == 1.0
    assert sum(use.refused for use in windows) == 0
    assert len(windows) >= 2
    assert [use.admitted for use in windows[:-1]] == [api] * (len(windows) - 1)
    assert 0 < windows[-1].admitted <= api
    waits = len(windows) - 1
    assert WINDOW * waits <= clock.now - 1000.0 <= (WINDOW + 1) * waits
