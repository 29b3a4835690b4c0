"""Every way a hub misbehaves against every call that can meet it: recovers, or raises the mapped error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crawler.client import HubClient
from crawler.interface import (
    AccessDeniedError,
    BadAnswerError,
    CorruptDownloadError,
    CrawlerError,
    HubUnavailableError,
    ListQuery,
    RangeIgnoredError,
    Snapshot,
)
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
    (large, "resolve"),
    (large, "cdn"),
    (ranged, "resolve"),
    (ranged, "cdn"),
    (ranged_small, "resolve"),
)
READS: tuple[tuple[Call, Route], ...] = tuple(
    pair for pair in ROUTES if pair not in {(large, "resolve"), (ranged, "resolve")}
)
"""Calls whose answer on that route has a body that they read."""

ANSWERS: tuple[Kind, ...] = ("429", "500", "502", "503", "504", "reset")


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize(("call", "route"), ROUTES)
def test_passing_failure_is_survived(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot, call: Call, route: Route, kind: Kind
) -> None:
    """Two failures in a row cost two attempts and nothing else."""
    hub.inject(Fault(route, kind, times=2))
    assert call(client, snapshot) == RIGHT[call]


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize(("call", "route"), ROUTES)
def test_lasting_failure_is_an_unavailable_hub(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot, cache: Path, call: Call, route: Route, kind: Kind
) -> None:
    """After all retries one error says so; exactly the allowed attempts were made, and no file appeared."""
    hub.inject(Fault(route, kind, times=-1))
    before = len([request for request in hub.requests if request.route == route])
    with pytest.raises(HubUnavailableError):
        call(client, snapshot)
    assert len([request for request in hub.requests if request.route == route]) - before == 3
    assert finished(cache) == []


@pytest.mark.parametrize(("call", "route"), ROUTES)
def test_stalled_socket_never_hangs(
    hub: LoopbackHub, make_client: MakeClient, snapshot: Snapshot, cache: Path, call: Call, route: Route
) -> None:
    """Silence ends after the timeout, once for each attempt."""
    hub.inject(Fault(route, "stall", times=-1))
    start = time.monotonic()
    with pytest.raises(HubUnavailableError):
        call(make_client(timeout=0.3, retries=1), snapshot)
    assert 0.6 <= time.monotonic() - start < 20
    assert finished(cache) == []


@pytest.mark.parametrize(("call", "route"), ROUTES)
def test_passing_stall_is_survived(
    hub: LoopbackHub, make_client: MakeClient, snapshot: Snapshot, call: Call, route: Route
) -> None:
    """One silent attempt does not fail a call."""
    hub.inject(Fault(route, "stall"))
    assert call(make_client(timeout=0.5, retries=8), snapshot) == RIGHT[call]


@pytest.mark.parametrize(("call", "route"), [pair for pair in READS if pair[0] not in {small, ranged_small}])
def test_dripping_body_never_hangs(
    hub: LoopbackHub, make_client: MakeClient, snapshot: Snapshot, cache: Path, call: Call, route: Route
) -> None:
    """A byte now and then resets every socket timeout, and still counts as a stall."""
    hub.inject(Fault(route, "drip", times=-1))
    start = time.monotonic()
    with pytest.raises(HubUnavailableError):
        call(make_client(timeout=0.3, retries=1), snapshot)
    assert time.monotonic() - start < 20
    assert finished(cache) == []


@pytest.mark.parametrize(("call", "route"), READS)
def test_truncated_body(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot, cache: Path, call: Call, route: Route
) -> None:
    """A body that breaks off is fetched again; one that always does is an unavailable Hub, not short data."""
    hub.inject(Fault(route, "truncate"))
    assert call(client, snapshot) == RIGHT[call]
    for path in finished(cache):
        path.unlink()
    hub.inject(Fault(route, "truncate", times=-1))
    with pytest.raises(HubUnavailableError):
        call(client, snapshot)
    assert finished(cache) == []


@pytest.mark.parametrize(("call", "route"), [(small, "resolve"), (large, "cdn")])
def test_wrong_bytes(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot, cache: Path, call: Call, route: Route
) -> None:
    """A file with the wrong hash is fetched once more, then refused; it never gets its final name."""
    hub.inject(Fault(route, "wrong-bytes"))
    assert call(client, snapshot) == RIGHT[call]
    for path in finished(cache):
        path.unlink()
    hub.inject(Fault(route, "wrong-bytes", times=-1))
    with pytest.raises(CorruptDownloadError):
        call(client, snapshot)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", ["not-json", "wrong-bytes"])
@pytest.mark.parametrize(("call", "route"), [(list_models, "list"), (pin, "info")])
def test_answer_that_is_not_json(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot, call: Call, route: Route, kind: Kind
) -> None:
    """A captive portal's page is a bad answer, reported at once."""
    hub.inject(Fault(route, kind, times=-1))
    with pytest.raises(BadAnswerError, match="not JSON"):
        call(client, snapshot)


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
