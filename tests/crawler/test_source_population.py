from __future__ import annotations

from pathlib import Path

from crawler.client import HubClient
from crawler.discover import default_sources, describe, discover
from crawler.interface import RepoId
from crawler.memory import InMemory
from forkwatch.demo.hub import LoopbackHub
from forkwatch.demo.population import populate


def test_population(tmp_path: Path) -> None:
    """All of 100 forks among 2,000 repositories, hardly a stranger, and few calls."""
    with LoopbackHub() as hub:
        truth = populate(hub, repos=2000, forks=100)
        with HubClient(endpoint=hub.endpoint, token=None, cache=tmp_path) as client:
            target, memory = describe(client, RepoId(truth.release)), InMemory()
            discover(client, target, default_sources(), memory)
            score = truth.score(memory.members())
            cold = client.cost.requests
            discover(client, target, default_sources(), memory)
            idle = client.cost.requests - cold
    assert score.missed == ()
    assert {truth.facts[name].way for name in score.wrong} <= {"from-scratch"}
    assert cold <= 300
    assert idle <= 15
