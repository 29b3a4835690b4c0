from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crawler.client import HubClient
from crawler.interface import (
    AccessDeniedError,
    BudgetExceededError,
    ByteSource,
    CorruptDownloadError,
    HubUnavailableError,
    RepoId,
    Snapshot,
)
from crawler.local import LocalFile
from crawler.ranges import GAP, Span, cut, in_parallel, plan
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.crawler.conftest import CONFIG, REPO, WEIGHTS, MakeClient

SIZE = 4096
Ranges = list[tuple[int, int]]

some_ranges = st.lists(
    st.integers(0, SIZE).flatmap(lambda offset: st.tuples(st.just(offset), st.integers(0, SIZE - offset)))
)


@given(some_ranges, st.integers(0, 300))
def test_plan_covers_what_was_asked_for(ranges: Ranges, gap: int) -> None:
    """Each range lies in one span, spans are sorted and apart, and none reads more than the gaps."""
    spans = plan(ranges, gap)
    for offset, length in ranges:
        assert length == 0 or sum(s.offset <= offset and offset + length <= s.end for s in spans) == 1
    for left, right in pairwise(spans):
        assert right.offset - left.end >= max(gap, 1)
    wanted = {byte for offset, length in ranges for byte in range(offset, offset + length)}
    for span in spans:
        assert {span.offset, span.end - 1} <= wanted
        holes = [byte for byte in range(span.offset, span.end) if byte not in wanted]
        runs = sum(1 for byte in holes if byte - 1 in wanted)
        assert len(holes) <= runs * max(gap - 1, 0)


@given(some_ranges, st.integers(0, 300))
def test_cut_gives_slices_of_the_file(ranges: Ranges, gap: int) -> None:
    """In the order asked, whatever overlaps, repeats or is empty."""
    data = random.Random(1).randbytes(SIZE)
    spans = plan(ranges, gap)
    contents = [data[span.offset : span.end] for span in spans]
    assert cut(ranges, spans, contents) == [data[offset : offset + length] for offset, length in ranges]


def test_near_ranges_are_one_and_distant_ones_are_not() -> None:
    """The limit is the gap itself."""
    assert plan([(0, 10), (10 + GAP - 1, 5)]) == (Span(0, 10 + GAP - 1 + 5),)
    assert plan([(10 + GAP, 5), (0, 10)]) == (Span(0, 10), Span(10 + GAP, 5))
    assert plan([]) == plan([(5, 0)]) == ()


def test_first_failure_stops_the_others() -> None:
    """What has begun is told to stop; what has not never begins; the failure itself is raised."""
    begun: list[int] = []

    def work(item: int, stop: Event) -> int:
        begun.append(item)
        if item == 2:
            raise AccessDeniedError("two")
        assert stop.wait(20)
        return item

    with pytest.raises(AccessDeniedError, match="two"):
        in_parallel(work, range(100), 4)
    assert len(begun) < 10


def test_work_is_done_by_eight_at_a_time() -> None:
    """All eight run together, and not nine."""
    together = threading.Barrier(8)
    lock, running, most = threading.Lock(), 0, 0

    def work(item: int, _: Event) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(20)
        with lock:
            running -= 1
        return item * item

    assert in_parallel(work, range(16)) == [item * item for item in range(16)]
    assert most == 8


@pytest.fixture(scope="module")
def source() -> Iterator[ByteSource]:
    """A file of `WEIGHTS` on a loopback hub."""
    with LoopbackHub() as hub:
        hub.create_repo(REPO)
        hub.commit(REPO, {"model.safetensors": WEIGHTS})
        with HubClient(endpoint=hub.endpoint, token=None, cache=Path("/nonexistent")) as client:
            yield client.open(client.snapshot(REPO), "model.safetensors")


weights_ranges = st.lists(
    st.integers(0, len(WEIGHTS)).flatmap(
        lambda offset: st.tuples(st.just(offset), st.integers(0, min(300_000, len(WEIGHTS) - offset)))
    ),
    max_size=12,
)


@given(weights_ranges)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ranges_over_sockets_are_slices_of_the_file(source: ByteSource, ranges: Ranges) -> None:
    """Arbitrary ranges, read in parallel from a CDN."""
    assert source.read_many(ranges) == [WEIGHTS[offset : offset + length] for offset, length in ranges]


@given(weights_ranges)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_local_ranges_are_slices_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, ranges: Ranges
) -> None:
    """A file on the disk answers alike."""
    path = tmp_path_factory.getbasetemp() / "weights"
    if not path.exists():
        path.write_bytes(WEIGHTS)
    expected = [WEIGHTS[offset : offset + length] for offset, length in ranges]
    assert LocalFile(path).read_many(ranges) == expected


SPREAD = [(start, 1000) for start in range(0, len(WEIGHTS) - 1000, 2 * GAP)]
"""Sixteen ranges, too far apart to be joined."""


def test_many_ranges_resolve_once_and_cost_their_bytes(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot
) -> None:
    """One call to the Hub whatever the number, one request to the CDN for each span."""
    spent = client.cost
    pieces = client.open(snapshot, "model.safetensors").read_many([*SPREAD, (5, 10), SPREAD[3]])
    assert pieces[-2:] == [WEIGHTS[5:15], WEIGHTS[SPREAD[3][0] : SPREAD[3][0] + 1000]]
    cost = client.cost - spent
    assert (cost.api, cost.resolvers, cost.cdn) == (0, 1, len(SPREAD))
    assert cost.bytes_downloaded == 1000 * len(SPREAD)


def test_small_file_is_one_request_to_the_hub(client: HubClient, snapshot: Snapshot) -> None:
    """The Hub counts each request for a file that it serves itself, so all ranges are one."""
    spent = client.cost
    assert client.open(snapshot, "config.json").read_many([(0, 2), (10, 3)]) == [CONFIG[:2], CONFIG[10:13]]
    assert (client.cost - spent).requests == 1


def test_empty_ranges_ask_nobody(client: HubClient, snapshot: Snapshot) -> None:
    """No bytes, no requests."""
    spent = client.cost
    assert client.open(snapshot, "model.safetensors").read_many([(0, 0), (len(WEIGHTS), 0)]) == [b"", b""]
    assert client.open(snapshot, "model.safetensors").read_many([]) == []
    assert client.cost == spent


@pytest.mark.parametrize("bad", [(len(WEIGHTS), 1), (-1, 5), (5, -1), (0, len(WEIGHTS) + 1)])
def test_one_range_outside_the_file_refuses_all(
    client: HubClient, snapshot: Snapshot, bad: tuple[int, int]
) -> None:
    """Before anything is requested."""
    spent = client.cost
    with pytest.raises(CorruptDownloadError):
        client.open(snapshot, "model.safetensors").read_many([(0, 10), bad])
    assert client.cost == spent


def test_expired_address_is_asked_for_once_by_all_threads(make_client: MakeClient) -> None:
    """Eight readers find the address refused; one of them gets a new one, and all go on with it."""
    with LoopbackHub(link_seconds=3) as brief:
        brief.create_repo(REPO)
        brief.commit(REPO, {"model.safetensors": WEIGHTS})
        client = make_client(endpoint=brief.endpoint)
        source = client.open(client.snapshot(REPO), "model.safetensors")
        source.read(0, 1)
        time.sleep(3.1)
        spent = client.cost
        assert source.read_many(SPREAD) == [WEIGHTS[start : start + 1000] for start, _ in SPREAD]
        assert (client.cost - spent).resolvers == 1
        assert len(SPREAD) < (client.cost - spent).cdn <= len(SPREAD) + 8


def test_failing_resolver_is_not_stormed(
    hub: LoopbackHub, make_client: MakeClient, snapshot: Snapshot
) -> None:
    """However many ranges: one series of attempts, not eight."""
    hub.inject(Fault("resolve", "503", times=-1))
    client = make_client(retries=2)
    with pytest.raises(HubUnavailableError):
        client.open(snapshot, "model.safetensors").read_many(SPREAD)
    assert client.cost.resolvers == 3


def test_threads_that_wait_for_one_resolver_share_its_failure(
    hub: LoopbackHub, make_client: MakeClient, snapshot: Snapshot
) -> None:
    """Eight reads of one file while the resolver is silent end with it, not one after the other."""
    hub.inject(Fault("resolve", "stall", times=-1))
    source = make_client(timeout=0.5, retries=0).open(snapshot, "model.safetensors")
    errors: list[Exception] = []

    def read() -> None:
        try:
            source.read(0, 10)
        except HubUnavailableError as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 8
    assert time.monotonic() - start < 2.5


def test_budget_ends_a_repository_before_the_bytes_are_asked_for(
    hub: LoopbackHub, make_client: MakeClient, snapshot: Snapshot
) -> None:
    """Reads and downloads of all kinds count together; another repository has a budget of its own."""
    client = make_client(budget=5000)
    source = client.open(snapshot, "model.safetensors")
    source.read(0, 2000)
    source.read_many([(0, 1000), (500_000, 1000)])
    client.read_text(snapshot, "config.json")
    spent = client.cost
    for call in (
        lambda: source.read(0, 1000),
        lambda: source.read_many([(0, 500), (500_000, 500)]),
        lambda: client.download(snapshot, "model.safetensors"),
    ):
        with pytest.raises(BudgetExceededError, match="lab/tiny-chat"):
            call()
    assert client.cost == spent
    assert source.read(7, 976) == WEIGHTS[7:983]
    hub.create_repo("x/other")
    hub.commit("x/other", {"model.safetensors": WEIGHTS})
    assert client.open(client.snapshot(RepoId("x/other")), "model.safetensors").read(0, 5000)


def test_budget_counts_what_came_and_not_what_failed(
    hub: LoopbackHub, make_client: MakeClient, snapshot: Snapshot
) -> None:
    """Failed attempts cost what they transferred; a file in the cache costs nothing."""
    client = make_client(budget=2 * len(WEIGHTS), retries=3)
    hub.inject(Fault("cdn", "503", times=2))
    hub.inject(Fault("cdn", "truncate"))
    client.download(snapshot, "model.safetensors")
    client.download(snapshot, "model.safetensors")
    assert client.cost.bytes_downloaded == len(WEIGHTS)
    hub.inject(Fault("cdn", "503", times=2))
    assert client.open(snapshot, "model.safetensors").read(0, len(WEIGHTS)) == WEIGHTS
    with pytest.raises(BudgetExceededError):
        client.open(snapshot, "model.safetensors").read(0, 1)


def test_new_name_is_no_new_budget(hub: LoopbackHub, make_client: MakeClient) -> None:
    """The Hub's own id of a repository survives a rename."""
    client = make_client(budget=1000)
    client.open(client.snapshot(REPO), "model.safetensors").read(0, 1000)
    hub.rename_repo(REPO, "lab/renamed")
    with pytest.raises(BudgetExceededError):
        client.open(client.snapshot(RepoId("lab/renamed")), "model.safetensors").read(0, 1)
