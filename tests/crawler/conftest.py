"""A loopback hub with one repository, and clients that do not really wait between attempts."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crawler.client import HubClient
from crawler.interface import Snapshot, parse_repo_id
from forkwatch.demo.hub import LoopbackHub

REPO = parse_repo_id("lab/tiny-chat")
WEIGHTS = random.Random(7).randbytes(2 << 20)
"""Large enough for several network reads, and beyond what is read whole when a server ignores Range."""

CONFIG = b'{"model_type": "llama"}\n'
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS}

MakeClient = Callable[..., HubClient]


class VirtualTime:
    """A clock that only moves when somebody sleeps by it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        """Seconds, in the order they were asked for."""
        self._lock = threading.Lock()

    def clock(self) -> float:
        with self._lock:
            return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds
            self.waits.append(seconds)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        running.create_repo(REPO)
        running.commit(REPO, FILES)
        yield running


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
def waits(time: VirtualTime) -> list[float]:
    """Seconds that clients asked to sleep."""
    return time.waits


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make_client(hub: LoopbackHub, cache: Path, time: VirtualTime) -> Iterator[MakeClient]:
    made: list[HubClient] = []

    def make(
        *,
        token: str | None = None,
        floor: int = 0,
        quota: int | None = None,
        budget: int | None = None,
        timeout: float = 10.0,
        retries: int = 2,
        endpoint: str | None = None,
    ) -> HubClient:
        client = HubClient(
            endpoint=endpoint or hub.endpoint,
            token=token,
            cache=cache,
            free_space_floor=floor,
            cache_quota=quota,
            repo_budget=budget,
            timeout=timeout,
            retries=retries,
            sleep=time.sleep,
            clock=time.clock,
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client: MakeClient) -> HubClient:
    return make_client()


@pytest.fixture
def snapshot(client: HubClient) -> Snapshot:
    return client.snapshot(REPO)


def finished(cache: Path) -> list[Path]:
    """Files in the cache under a final name."""
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix != ".part")
