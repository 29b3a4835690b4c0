"""A running loopback hub, and the real clients to talk to it."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Read by huggingface_hub when it is imported: plain HTTP, nothing but what the test asks for.
os.environ.setdefault("NO_PROXY", "127.0.0.1")
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import httpx2
import pytest
from huggingface_hub import HfApi, close_session

from forkwatch.demo.hub import LoopbackHub


@pytest.fixture
def hub(shared_session: None) -> Iterator[LoopbackHub]:
    """An empty hub."""
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    """The real client, anonymous."""
    return HfApi(endpoint=hub.endpoint, token=False)


@pytest.fixture(scope="session")
def shared_session() -> Iterator[None]:
    """Closes the connections of the real client, which it shares between all of its objects."""
    yield
    close_session()


@pytest.fixture(scope="session")
def web() -> Iterator[httpx2.Client]:
    """Plain HTTP, for what the real client hides; redirects are not followed."""
    with httpx2.Client(trust_env=False, timeout=60) as client:
        yield client
