"""What the fault matrix does not show: waits, restarts, small files, several faults at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from crawler.client import HubClient
from crawler.interface import AccessDeniedError, CrawlerError, RangeIgnoredError, Snapshot
from crawler.query import ListQuery
from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.demo.hub.faults import Kind, Route
from tests.crawler.conftest import CONFIG, REPO, WEIGHTS, MakeClient, finished

Call = Callable[[HubClient, Snapshot], object]


def list_models(client: HubClient, snapshot: Snapshot) -> object:
    return [row.repo for row in client.list_models(ListQuery())]


def pin(client: HubClient, snapshot: Snapshot) -> object:
    return client.snapshot(REPO).commit == snapshot.commit


def small(client: HubClient, snapshot: Snapshot) -> object:
    return client.download(snapshot, "config.json").read_bytes()


def large(client: HubClient, snapshot: Snapshot) -> object:
    return client.download(snapshot, "model.safetensors").read_bytes()


def ranged(client: HubClient, snapshot: Snapshot) -> object:
    return client.open(snapshot, "model.safetensors").read(1000, 100_000)


def ranged_small(client: HubClient, snapshot: Snapshot) -> object:
    return client.open(snapshot, "config.json").read(2, 4)


RIGHT: dict[Call, object] = {
    list_models: [REPO],
    pin: True,
    small: CONFIG,
    large: WEIGHTS,
    ranged: WEIGHTS[1000:101_000],
    ranged_small: CONFIG[2:6],
}
ROUTES: tuple[tuple[Call, Route], ...] = (
    (list_models, "list"),
    (pin, "info"),
    (small, "resolve"),
    (large, "cdn"),
    (ranged, "cdn"),
    (ranged_small, "resolve"),
)


def test_ignored_range_is_refused_unread(hub: LoopbackHub, client: HubClient, snapshot: Snapshot) -> None:
    """A server that sends the whole of a large file is not listened to."""
    hub.inject(Fault("cdn", "ignore-range", times=-1))
    spent = client.cost.bytes_downloaded
    with pytest.raises(RangeIgnoredError):
        ranged(client, snapshot)
    assert client.cost.bytes_downloaded == spent


def test_ignored_range_of_a_small_file_is_cut_out(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot
) -> None:
    """Where the whole file is small, the range is taken from it."""
    hub.inject(Fault("resolve", "ignore-range", times=-1))
    assert ranged_small(client, snapshot) == RIGHT[ranged_small]


def test_ignored_range_restarts_an_interrupted_download(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot
) -> None:
    """A resumed download that gets the whole file instead starts over, and is right at once."""
    hub.inject(Fault("cdn", "truncate"))
    hub.inject(Fault("cdn", "ignore-range"))
    assert large(client, snapshot) == WEIGHTS
    assert client.cost.bytes_downloaded == len(WEIGHTS) // 2 + len(WEIGHTS)


@pytest.mark.parametrize("call", [large, ranged])
def test_expired_address(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot, cache: Path, call: Call
) -> None:
    """A CDN address that ran out is asked for again, once; a CDN that refuses fresh ones denies access."""
    hub.inject(Fault("cdn", "expired"))
    assert call(client, snapshot) == RIGHT[call]
    for path in finished(cache):
        path.unlink()
    hub.inject(Fault("cdn", "expired", times=-1))
    with pytest.raises(AccessDeniedError):
        call(client, snapshot)
    assert finished(cache) == []


def test_address_that_really_expires(make_client: MakeClient, cache: Path) -> None:
    """One open file outlives its CDN address."""
    with LoopbackHub(link_seconds=-1) as stale:
        stale.create_repo(REPO)
        stale.commit(REPO, {"model.safetensors": WEIGHTS})
        client = make_client(endpoint=stale.endpoint)
        source = client.open(client.snapshot(REPO), "model.safetensors")
        with pytest.raises(AccessDeniedError):
            source.read(0, 10)
        assert [request.method for request in stale.requests] == ["GET", "HEAD", "GET", "HEAD", "GET"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("info", "429", retry_after=7, reset=40), 41.0),
        (Fault("info", "429", retry_after=7), 7.0),
        (Fault("info", "429", reset=10**6), 310.0),
        (Fault("info", "503"), 1.0),
    ],
)
def test_waits_as_long_as_the_hub_asks(
    hub: LoopbackHub, client: HubClient, waits: list[float], fault: Fault, expected: float
) -> None:
    """What the Hub says, to the next whole second, capped at one window; else the back-off."""
    hub.inject(fault)
    client.snapshot(REPO)
    assert waits == [expected]


def test_no_call_raises_anything_else(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot, cache: Path
) -> None:
    """Whatever every route answers with, only errors of the crawler leave it."""
    kinds: tuple[Kind, ...] = (
        "not-json",
        "expired",
        "foreign-link",
        "loop-link",
        "wrong-bytes",
        "ignore-range",
    )
    for call, _ in ROUTES:
        for kind in kinds:
            for route in ("list", "info", "resolve", "cdn"):
                hub.inject(Fault(route, kind, times=-1))
            with contextlib.suppress(CrawlerError):
                call(client, snapshot)
            hub.clear_faults()
            for path in finished(cache):
                path.unlink()
