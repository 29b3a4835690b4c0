"""Every way a hub misbehaves against every call that can meet it: recovers, or raises the mapped error.

`TABLE` says for each kind of fault (row) and each request of each call (column) how a lasting fault ends:

    U  HubUnavailableError, after exactly the allowed attempts; one or two passing faults are survived
    B  BadAnswerError, at once
    C  CorruptDownloadError, after one more try
    I  RangeIgnoredError, at once; the file is not read
    A  AccessDeniedError, after one more try
    N  RepoNotFoundError, at once
    S  NoSpaceError, and nothing more is written
    =  the right result, because the call has another way or the fault does not concern it
    h  another commit: the new head, which is what was asked for
    x  wrong bytes that nobody can notice: a range of a file has no hash
    -  cannot occur: a HEAD has no body, a first download asks for no range, only the CDN's addresses expire,
       an API answer is not written to the disk, and a listing is about no single repository
"""

from __future__ import annotations

import hashlib
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from crawler.client import HubClient
from crawler.interface import (
    AccessDeniedError,
    BadAnswerError,
    CorruptDownloadError,
    CrawlerError,
    HubUnavailableError,
    NoSpaceError,
    RangeIgnoredError,
    RepoId,
    RepoNotFoundError,
    Snapshot,
)
from crawler.query import ListQuery
from forkwatch.demo.hub import Fault, LoopbackHub, RecordedRequest
from forkwatch.demo.hub.faults import Kind, Route
from tests.crawler.conftest import CONFIG, MakeClient, finished
from tests.crawler.shards import header, safetensors, sharded

MATRIX = RepoId("lab/matrix")
CARD = b"---\nlicense: mit\n---\nA model."
LARGE = "model-00001-of-00002.safetensors"
FILES = sharded({LARGE: {"a": 2 << 20}, "model-00002-of-00002.safetensors": {"b": 1000}}) | {
    "README.md": CARD,
    "config.json": CONFIG,
    "other/x.safetensors": safetensors({"c": 1000}),
}
RANGES = [(7, 100), (1_500_000, 1000), (500_000, 70_000), (7, 5)]
HEADERS = {
    LARGE: json.loads(header({"a": 2 << 20})),
    "model-00002-of-00002.safetensors": json.loads(header({"b": 1000})),
}
ALONE = {"model.safetensors": safetensors({"w": 1 << 20})}
SINGLE = RepoId("lab/single")


@dataclass(frozen=True)
class World:
    """A hub with a sharded model and a single file, and their snapshots from before anything went wrong."""

    hub: LoopbackHub
    matrix: Snapshot
    single: Snapshot


Call = Callable[[HubClient, World], object]


def listing(client: HubClient, _: World) -> object:
    return sorted(row.repo for row in client.list_models(ListQuery()))


def summary(client: HubClient, _: World) -> object:
    return client.summary(MATRIX).commit


def snapshot(client: HubClient, _: World) -> object:
    return client.snapshot(MATRIX)


def text(client: HubClient, world: World) -> object:
    return client.read_text(world.matrix, "config.json")


def read(client: HubClient, world: World) -> object:
    return client.open(world.matrix, LARGE).read(1000, 100_000)


def many(client: HubClient, world: World) -> object:
    return client.open(world.matrix, LARGE).read_many(RANGES)


def told(client: HubClient, world: World) -> object:
    """The headers of a sharded model; the file that is none of its shards is left out of the comparison."""
    headers = client.tensor_headers(world.matrix)
    return {path: json.loads(text) for path, text in headers.items() if path in HEADERS}


def headers(client: HubClient, world: World) -> object:
    return client.tensor_headers(world.single)


def small(client: HubClient, world: World) -> object:
    return client.download(world.matrix, "config.json").read_bytes()


def large(client: HubClient, world: World) -> object:
    return client.download(world.matrix, LARGE).read_bytes()


def right(call: Call, world: World) -> object:
    """What a call returns when nothing is wrong."""
    data = FILES[LARGE]
    results: dict[Call, object] = {
        listing: [MATRIX, SINGLE],
        summary: world.matrix.commit,
        snapshot: world.matrix,
        text: CONFIG.decode(),
        read: data[1000:101_000],
        many: [data[offset : offset + length] for offset, length in RANGES],
        told: HEADERS,
        headers: {"model.safetensors": header({"w": 1 << 20})},
        small: CONFIG,
        large: data,
    }
    return results[call]


@dataclass(frozen=True)
class Column:
    """A call, and one of the requests that it makes."""

    call: Call
    route: Route
    repo: RepoId | None = None
    path: str | None = None


COLUMNS: dict[str, Column] = {
    "list": Column(listing, "list"),
    "sum": Column(summary, "info"),
    "snap": Column(snapshot, "info"),
    "card": Column(snapshot, "resolve", MATRIX, "README.md"),
    "text": Column(text, "resolve", MATRIX, "config.json"),
    "read@": Column(read, "resolve", MATRIX, LARGE),
    "read": Column(read, "cdn", MATRIX, LARGE),
    "many@": Column(many, "resolve", MATRIX, LARGE),
    "many": Column(many, "cdn", MATRIX, LARGE),
    "told": Column(told, "safetensors-metadata", MATRIX),
    "check": Column(told, "info", MATRIX),
    "hdr@": Column(headers, "resolve", SINGLE),
    "hdr": Column(headers, "cdn", SINGLE),
    "small": Column(small, "resolve", MATRIX, "config.json"),
    "large@": Column(large, "resolve", MATRIX, LARGE),
    "large": Column(large, "cdn", MATRIX, LARGE),
}
"""`@` is the request that asks the Hub where a large file is; `check` asks whether the head has changed."""

TABLE = """
                 list sum snap card text read@ read many@ many told check hdr@ hdr small large@ large
429              U    U   U    U    U    U     U    U     U    =    =     U    U   U     U      U
429 retry-after  U    U   U    U    U    U     U    U     U    =    =     U    U   U     U      U
500              U    U   U    U    U    U     U    U     U    =    =     U    U   U     U      U
502              U    U   U    U    U    U     U    U     U    =    =     U    U   U     U      U
503              U    U   U    U    U    U     U    U     U    =    =     U    U   U     U      U
504              U    U   U    U    U    U     U    U     U    =    =     U    U   U     U      U
stall            U    U   U    U    U    U     U    U     U    =    =     U    U   U     U      U
reset            U    U   U    U    U    U     U    U     U    =    =     U    U   U     U      U
drip             U    U   U    U    U    -     U    -     U    =    =     -    U   U     -      U
truncate         U    U   U    U    U    -     U    -     U    =    =     -    U   U     -      U
wrong-bytes      B    B   B    C    C    -     x    -     x    =    =     -    x   C     -      C
ignore-range     -    -   -    -    -    -     I    -     I    -    -     -    I   -     -      -
foreign-link     B    B   B    =    =    =     =    =     =    =    =     =    =   =     =      =
loop-link        B    =   =    =    =    =     =    =     =    =    =     =    =   =     =      =
not-json         B    B   B    C    C    I     I    I     I    =    =     I    I   C     U      U
expired          -    -   -    -    -    -     A    -     A    -    -     -    A   -     -      A
deleted          -    N   N    -    N    N     -    N     -    N    -     N    -   N     N      -
force-pushed     -    h   h    -    N    N     -    N     -    N    -     N    -   N     N      -
disk full        -    -   -    S    S    -     -    -     -    -    -     -    -   S     -      S
"""

ERRORS: dict[str, type[CrawlerError]] = {
    "U": HubUnavailableError,
    "B": BadAnswerError,
    "C": CorruptDownloadError,
    "I": RangeIgnoredError,
    "A": AccessDeniedError,
    "N": RepoNotFoundError,
    "S": NoSpaceError,
}
SURVIVED_ONCE = frozenset("UCA=x")
"""Outcomes of lasting faults whose first occurrence alone is survived."""
OF_THE_HUB = ("deleted", "force-pushed")
OF_THE_DISK = ("disk full",)


def cells() -> Iterator[tuple[str, str, str]]:
    """(fault, column, outcome) of the whole table."""
    names, *rows = TABLE.strip().splitlines()
    for row in rows:
        fault, outcomes = row[:17].strip(), row[17:].split()
        yield from zip([fault] * len(outcomes), names.split(), outcomes, strict=True)


def some(*faults: str, but: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    """Cells that can occur, of these faults, or of all but those."""
    return [
        cell for cell in cells() if cell[2] != "-" and (cell[0] in faults if faults else cell[0] not in but)
    ]


def test_table_is_complete() -> None:
    """Every kind of fault that the loopback hub knows has a row, with a word on each column."""
    rows = {fault for fault, _, _ in cells()}
    assert set(get_args(Kind)) - {"change"} <= rows
    assert set(OF_THE_HUB) <= rows  # what `change` does
    assert len(list(cells())) == len(rows) * len(COLUMNS)


@contextmanager
def populated(cache: Path) -> Iterator[World]:
    with LoopbackHub() as hub:
        for repo, files in ((MATRIX, FILES), (SINGLE, ALONE)):
            hub.create_repo(repo)
            hub.commit(repo, files)
        with HubClient(endpoint=hub.endpoint, token=None, cache=cache) as client:
            yield World(hub, client.snapshot(MATRIX), client.snapshot(SINGLE))


@pytest.fixture(scope="module")
def lasting_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with populated(tmp_path_factory.mktemp("pins")) as found:
        yield found


@pytest.fixture
def world(lasting_world: World) -> Iterator[World]:
    """One hub for all faults that it recovers from."""
    yield lasting_world
    lasting_world.hub.clear_faults()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    """A hub to change."""
    with populated(tmp_path / "pins") as found:
        yield found


@pytest.fixture
def reader(make_client: MakeClient) -> Callable[..., HubClient]:
    def make(world: World, fault: str = "", retries: int = 2) -> HubClient:
        timeout = 0.2 if fault in {"stall", "drip"} else 10.0
        return make_client(endpoint=world.hub.endpoint, timeout=timeout, retries=retries)

    return make


def fault_of(name: str, column: Column, times: int) -> Fault:
    kind, _, asked = name.partition(" ")
    pause = 0.5 if kind == "stall" else 0.07 if kind == "drip" else None
    return Fault(
        column.route,
        kind,  # type: ignore[arg-type] # one of the rows
        times=times,
        repo=column.repo,
        path=column.path,
        retry_after=3 if asked else None,
        seconds=pause,
    )


def meets(request: RecordedRequest, column: Column) -> bool:
    """Whether a fault of this column could hit the request."""
    path = dict(request.query).get("path", request.path)
    return request.route == column.route and path.endswith(column.path or "")


def check_cache(cache: Path) -> None:
    """Whatever has a final name is exactly what the name says."""
    for path in finished(cache):
        data = path.read_bytes()
        if len(path.name) == 64:
            assert hashlib.sha256(data).hexdigest() == path.name
        else:
            assert hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == path.name


@pytest.mark.parametrize(("fault", "column", "outcome"), some(but=OF_THE_HUB + OF_THE_DISK))
def test_lasting_fault(
    world: World, reader: Callable[..., HubClient], cache: Path, fault: str, column: str, outcome: str
) -> None:
    """Ends as the table says, in bounded time; nothing but whole files has a final name."""
    where = COLUMNS[column]
    world.hub.inject(fault_of(fault, where, -1))
    client = reader(world, fault, retries=1)
    before, start = len(world.hub.requests), time.monotonic()
    if outcome in ERRORS:
        with pytest.raises(ERRORS[outcome]) as caught:
            where.call(client, world)
        assert "Signature=" not in str(caught.value)
    else:
        assert (where.call(client, world) == right(where.call, world)) == (outcome == "=")
    assert time.monotonic() - start < 20
    if outcome == "U" and where.call is not many and fault != "not-json":
        assert sum(meets(request, where) for request in world.hub.requests[before:]) == 2
    check_cache(cache)


@pytest.mark.parametrize(
    ("fault", "column", "outcome"),
    [cell for cell in some(but=OF_THE_HUB + OF_THE_DISK) if cell[2] in SURVIVED_ONCE - {"x"}],
)
def test_passing_fault(
    world: World, reader: Callable[..., HubClient], cache: Path, fault: str, column: str, outcome: str
) -> None:
    """A fault that occurs once, or twice where it is one that passes by itself, costs time only."""
    where = COLUMNS[column]
    world.hub.inject(fault_of(fault, where, 2 if outcome == "U" and fault not in {"stall", "drip"} else 1))
    assert where.call(reader(world, fault, retries=8), world) == right(where.call, world)
    check_cache(cache)


@pytest.mark.parametrize(("fault", "column", "outcome"), some(*OF_THE_HUB))
def test_repository_that_changes_after_it_was_pinned(
    fresh: World, reader: Callable[..., HubClient], cache: Path, fault: str, column: str, outcome: str
) -> None:
    """What is gone is not found; what was force-pushed is never mixed with what was pinned."""
    where = COLUMNS[column]
    for repo in (MATRIX, SINGLE):
        if fault == "deleted":
            fresh.hub.delete_repo(repo)
        else:
            fresh.hub.force_push(repo, {LARGE: safetensors({"z": 2 << 20}), "model.safetensors": b"new"})
    if outcome == "N":
        with pytest.raises(RepoNotFoundError):
            where.call(reader(fresh, fault), fresh)
    else:
        assert outcome == "h"
        assert where.call(reader(fresh, fault), fresh) != right(where.call, fresh)
    assert finished(cache) == []


@pytest.mark.parametrize("change", ["delete", "force-push"])
@pytest.mark.parametrize("call", [read, many])
def test_repository_that_changes_in_the_middle_of_a_read(
    fresh: World, reader: Callable[..., HubClient], change: str, call: Call
) -> None:
    """An open file gives the pinned bytes as long as its address holds, then says that they are gone."""
    client = reader(fresh)
    source = client.open(fresh.matrix, LARGE)
    assert source.read(0, 100) == FILES[LARGE][:100]
    if change == "delete":
        fresh.hub.delete_repo(MATRIX)
    else:
        fresh.hub.force_push(MATRIX, {LARGE: safetensors({"z": 2 << 20})})
    spans = RANGES if call is many else RANGES[:1]
    with suppress(RepoNotFoundError):  # the CDN has let it go as well
        assert source.read_many(spans) == [FILES[LARGE][offset : offset + size] for offset, size in spans]
    fresh.hub.inject(Fault("cdn", "expired", times=-1))
    with pytest.raises(RepoNotFoundError):
        source.read_many(spans)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond `size` bytes (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("fault", "column", "outcome"), some(*OF_THE_DISK))
def test_disk_that_fills(
    world: World, reader: Callable[..., HubClient], cache: Path, fault: str, column: str, outcome: str
) -> None:
    """In the middle of a file; no part of it gets its name, and with room again it is completed."""
    call = COLUMNS[column].call
    with largest_file(10), pytest.raises(ERRORS[outcome]):
        call(reader(world, fault), world)
    assert finished(cache) == []
    assert call(reader(world, fault), world) == right(call, world)
    check_cache(cache)
