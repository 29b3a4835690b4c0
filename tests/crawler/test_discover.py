from __future__ import annotations

import itertools
import logging
from datetime import UTC, datetime, timedelta

import pytest

from crawler.client import HubClient
from crawler.discover import default_sources, describe, discover
from crawler.interface import (
    Candidate,
    Channel,
    Claim,
    Hub,
    HubUnavailableError,
    Relation,
    RepoId,
    RepoNotFoundError,
    RepoSummary,
    Shape,
)
from crawler.memory import NEVER_HAD_ROWS, InMemory, merge
from crawler.sources.interface import Batch, Memory
from crawler.sources.name import NameSource
from crawler.walk import FEED
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.crawler.conftest import REPO
from tests.crawler.family import PARAMETERS, VILLAGE, crawl, found, member, put, release, village

A, B = RepoId("a/one"), RepoId("b/two")


def state(memory: Memory) -> tuple[object, ...]:
    """Everything that a crawl leaves behind, without the order in which it was found."""
    keys = [FEED, f"declared:{REPO}", "tag:heretic", *(f"declared:{repo}" for repo in memory.members())]
    return dict(memory.members()), dict(memory.readings()), {key: memory.watermark(key) for key in keys}


def spent(client: HubClient, memory: Memory) -> int:
    """Calls of one more run, the description of the release included."""
    before = client.cost
    crawl(client, memory)
    return (client.cost - before).requests


class KilledError(Exception):
    """Stands for a kill."""


class Mortal(InMemory):
    """A memory whose process dies when it keeps its n-th batch."""

    def __init__(self) -> None:
        super().__init__()
        self.lives = 0

    def keep(self, batch: Batch) -> None:
        if self.lives == 0:
            raise KilledError
        self.lives -= 1
        super().keep(batch)


def test_merge_does_not_depend_on_order() -> None:
    """One candidate a repository with all channels and claims, sorted, the release left out."""
    named, based = Claim(None, None, "name"), Claim(REPO, Relation.FINETUNE, "base")
    old = RepoSummary(repo=B, last_modified=datetime(2026, 1, 1, tzinfo=UTC))
    new = RepoSummary(repo=B, last_modified=datetime(2026, 2, 1, tzinfo=UTC))
    candidates = [
        Candidate(B, (Channel.NAME,), (named,), new),
        Candidate(A, (Channel.TAG,), ()),
        Candidate(B, (Channel.DECLARED,), (based, named), old),
        Candidate(RepoId("LAB/Tiny-Chat"), (Channel.NAME,), (named,)),
    ]
    expected = (
        Candidate(A, (Channel.TAG,), ()),
        Candidate(B, (Channel.DECLARED, Channel.NAME), (based, named), new),
    )
    for order in itertools.permutations(candidates):
        assert merge(order, REPO) == expected


def test_release_is_described_in_one_call(hub: LoopbackHub, client: HubClient) -> None:
    """Its canonical id, its shape, and what it declares as its own base."""
    release(hub)
    target = describe(client, REPO)
    assert target.release == REPO
    assert target.bases == {RepoId("lab/tiny-base")}
    assert target.shape == Shape("llama", PARAMETERS)
    assert client.cost.requests == 1
    with pytest.raises(RepoNotFoundError):
        describe(client, RepoId("lab/none"))


def test_nothing_found_is_an_empty_result(client: HubClient) -> None:
    """No forks is an answer, and the caller's to judge."""
    memory, done = crawl(client)
    assert found(memory) == []
    assert done.found == 0


def test_everything_is_found_and_no_decoy(hub: LoopbackHub, client: HubClient) -> None:
    """Each fork by its channels, chains of channels included; the release's base and siblings are none."""
    village(hub)
    memory, done = crawl(client)
    assert found(memory) == sorted(VILLAGE)
    for repo, channels in VILLAGE.items():
        assert channels <= set(member(memory, repo).channels), repo
    assert done.found == len(VILLAGE)
    seen = member(memory, "d/child").seen
    assert seen is not None
    assert seen.commit is not None
    assert all(one.claims for one in memory.members().values())


def test_order_of_the_sources_makes_no_difference(hub: LoopbackHub, client: HubClient) -> None:
    """Any channel first, any last: the same candidates with the same channels, claims and rows."""
    village(hub)
    expected, _ = crawl(client)
    count = len(default_sources())
    orders = [tuple(range(count))[shift:] + tuple(range(count))[:shift] for shift in range(count)]
    for order in (*orders, *(order[::-1] for order in orders)):
        sources = default_sources()
        memory, _ = crawl(client, sources=[sources[index] for index in order])
        assert memory.members() == expected.members(), order
        assert memory.readings() == expected.readings(), order


def test_idle_crawl_costs_a_handful_of_calls(hub: LoopbackHub, client: HubClient) -> None:
    """The number of calls does not grow with the number of known forks."""
    village(hub)
    memory, _ = crawl(client)
    few = spent(client, memory)
    for number in range(60):
        put(hub, f"y{number}/child", "base_model: lab/tiny-chat")
    crawl(client, memory)
    assert len(found(memory)) == len(VILLAGE) + 60
    before = memory.members()
    assert spent(client, memory) == few <= 14
    assert memory.members() == before


def test_cards_are_read_once(hub: LoopbackHub, client: HubClient) -> None:
    """Not again in another listing, nor in another run, unless the repository has a new commit."""
    village(hub)
    memory, done = crawl(client)
    cards = [one for one in hub.requests if one.route == "resolve"]
    assert len(cards) == len({one.repo for one in cards}) == done.read
    assert crawl(client, memory)[1].read == 0
    put(hub, "x/else", "tags: [heretic]", "This is a decensored version of lab/tiny-chat.", created=True)
    assert crawl(client, memory)[1].read == 1
    assert "x/else" in found(memory)


def test_feed_brings_what_changed_later(hub: LoopbackHub, client: HubClient) -> None:
    """A child of a known leaf, and a repository that declares its base only now; no call for the others."""
    village(hub)
    memory, _ = crawl(client)
    calls = spent(client, memory)
    put(hub, "y/late", "base_model: d/great")
    put(hub, "x/plain", "base_model: lab/tiny-chat", created=True)
    assert spent(client, memory) == calls + 4  # the children of both, and two new accounts
    assert {"y/late", "x/plain"} <= set(found(memory))


def test_kill_at_any_point_leaves_the_same_final_state(hub: LoopbackHub, client: HubClient) -> None:
    """A run that dies as it keeps its n-th batch, and is started again, ends like one that did not."""
    village(hub)
    expected, done = crawl(client)
    assert done.listings > 20
    for lives in range(done.listings):
        memory = Mortal()
        memory.lives = lives
        with pytest.raises(KilledError):
            crawl(client, memory)
        memory.lives = -1
        crawl(client, memory)
        assert state(memory) == state(expected), lives


def test_killed_run_repeats_one_listing_at_most(hub: LoopbackHub, client: HubClient) -> None:
    """What a killed run kept of the listings walked once is not walked again."""
    village(hub)
    memory = Mortal()
    memory.lives = 12
    with pytest.raises(KilledError):
        crawl(client, memory)
    memory.lives = -1
    crawl(client, memory)
    asked = [
        one.query
        for one in hub.requests
        if one.route == "list" and dict(one.query).get("filter", "").startswith("base_model:d/")
    ]
    assert len(asked) - len(set(asked)) <= 1


def test_letter_case_makes_no_difference(hub: LoopbackHub, client: HubClient) -> None:
    """A base in other letters is the same base, and the release in other letters is no fork."""
    release(hub)
    memory, _ = crawl(client)
    put(hub, "x/shouts", "base_model: LAB/Tiny-CHAT")
    put(hub, "x/child", "base_model: X/Shouts")
    crawl(client, memory)
    assert found(memory) == ["x/child", "x/shouts"]


def test_circles_end(hub: LoopbackHub, client: HubClient) -> None:
    """Repositories that name each other, themselves or the release as a child are visited once."""
    release(hub, "base_model: x/b")
    put(hub, "x/a", "base_model: [lab/tiny-chat, x/b, x/a]")
    put(hub, "x/b", "base_model: x/a")
    put(hub, "x/self", "base_model: x/self")
    memory, done = crawl(client)
    assert found(memory) == ["x/a", "x/b"]
    assert done.listings < 20


def test_since_looks_at_later_changes_only_and_closes_no_gap(hub: LoopbackHub, client: HubClient) -> None:
    """What is older than the date is not found, and not forgotten: a run without the date finds it."""
    release(hub)
    for number, date in enumerate((datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC))):
        hub.create_repo(f"x/child-{number}", created_at=date)
        put(hub, f"x/child-{number}", "base_model: lab/tiny-chat", created=True)
    memory, _ = crawl(client, since=datetime(2026, 4, 1, tzinfo=UTC))
    assert found(memory) == ["x/child-1"]
    assert memory.watermark(FEED) is None
    crawl(client, memory)
    assert found(memory) == ["x/child-0", "x/child-1"]
    mark = memory.watermark(FEED)
    crawl(client, memory, since=datetime(2026, 4, 1, tzinfo=UTC))
    assert memory.watermark(FEED) == mark


def test_feed_with_a_long_gap_gives_way_to_the_listings(
    hub: LoopbackHub, client: HubClient, caplog: pytest.LogCaptureFixture
) -> None:
    """When walking every listing from its own watermark is cheaper, that is done; the feed is caught up."""
    release(hub)
    put(hub, "x/child", "base_model: lab/tiny-chat")
    memory, _ = crawl(client)
    start = datetime(2026, 2, 1, tzinfo=UTC)
    hub.create_repo("y/grandchild", created_at=start)
    put(hub, "y/grandchild", "base_model: x/child", created=True)
    for number in range(3100):
        hub.create_repo(f"noise/m{number}", created_at=start + timedelta(minutes=10 * number + 10))
    with caplog.at_level(logging.WARNING):
        before = client.cost
        _, done = crawl(client, memory)
    assert done.feed_skipped
    assert "too long" in caplog.text
    assert (client.cost - before).requests < 25
    assert found(memory) == ["x/child", "y/grandchild"]
    _, done = crawl(client, memory)
    assert not done.feed_skipped
    assert done.rows < 1000


def test_budget_for_cards_is_kept_and_the_next_run_goes_on(
    hub: LoopbackHub, client: HubClient, caplog: pytest.LogCaptureFixture
) -> None:
    """What was not read is reported, its listing is not finished, and in the end everything was read."""
    release(hub)
    for number in range(5):
        put(hub, f"x{number}/m", "tags: [heretic]", "This is a decensored version of lab/tiny-chat.")
    memory: Memory = InMemory()
    with caplog.at_level(logging.WARNING):
        _, done = crawl(client, memory, default_sources(cards=2))
    assert (done.read, len(found(memory))) == (2, 2)
    assert done.unread == 3
    assert "left to the next run" in caplog.text
    for _ in range(3):
        crawl(client, memory, default_sources(cards=2))
    assert len(found(memory)) == 5
    assert memory.watermark("tag:heretic") is not None


def test_bound_on_listings_is_reported_and_the_next_run_goes_on(hub: LoopbackHub, client: HubClient) -> None:
    """A family too large for one run is found in several."""
    village(hub)
    memory: Memory = InMemory()
    _, done = crawl(client, memory, max_listings=8)
    assert done.unlisted > 0
    for _ in range(8):
        crawl(client, memory, max_listings=16)
    assert found(memory) == sorted(VILLAGE)


def test_endless_listing_is_cut_aloud(
    hub: LoopbackHub, client: HubClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest rows are looked at; the rest is given up and named, and the next run goes on from there."""
    release(hub)
    for number in range(5):
        put(hub, f"x/tiny-chat-{number}")
    with caplog.at_level(logging.WARNING):
        memory, done = crawl(client, sources=[NameSource()], max_rows=3)
    assert "name:tiny-chat" in done.cut
    assert "only the newest 3 rows" in caplog.text
    assert memory.watermark("name:tiny-chat") is not None


def test_failing_call_fails_the_discovery(hub: LoopbackHub, client: HubClient) -> None:
    """Half a list would read as "no more forks"; what was kept before is kept."""
    put(hub, "x/plain", "base_model: lab/tiny-chat")
    target, memory = describe(client, REPO), InMemory()
    hub.inject(Fault("list", "503", times=-1))
    with pytest.raises(HubUnavailableError):
        discover(client, target, default_sources(), memory)
    assert memory.watermark(f"declared:{REPO}") is None


def test_progress_is_told_each_batch_after_it_was_kept(hub: LoopbackHub, client: HubClient) -> None:
    """The numbers of the batches add up to those of the run."""
    village(hub)
    memory: Memory = InMemory()
    told: list[Batch] = []

    def progress(batch: Batch) -> None:
        assert {one.repo for one in batch.candidates} <= set(memory.members())
        told.append(batch)

    _, done = crawl(client, memory, progress=progress)
    assert len(told) == done.listings
    assert sum(batch.rows for batch in told) == done.rows
    assert told[0].listing == FEED


@pytest.mark.parametrize(
    "card",
    [
        "base_model: ['\x1b[2Jlab/tiny-chat', 7, {a: 1}]".replace("\x1b", "\\e"),
        "base_model: {lab/tiny-chat: 1}",
        "tags: [heretic, '" + "x" * 100_000 + "']",
        "tags: heretic\nbase_model: ''",
        "base_model: " + "a/" * 50_000,
    ],
)
def test_hostile_cards_stop_nothing(hub: LoopbackHub, client: HubClient, card: str) -> None:
    """A card of wrong types, control characters or endless text is no fork, and the others are found."""
    release(hub)
    put(hub, "x/hostile", card, "\x00\x1b]0;evil\x07" + "version of " * 30_000)
    put(hub, "x/child", "base_model: lab/tiny-chat")
    memory, _ = crawl(client)
    assert found(memory) == ["x/child"]
    assert all(
        claim.statement.isprintable() and len(claim.statement) <= 300
        for one in memory.members().values()
        for claim in one.claims
    )


def test_watermark_of_an_empty_listing_means_walked(client: HubClient) -> None:
    """A leaf is not asked again, and an empty channel is asked in full, from its beginning."""
    memory, _ = crawl(client)
    assert memory.watermark("tag:heretic") == NEVER_HAD_ROWS
    crawl(client, memory)
    assert memory.watermark("tag:heretic") == NEVER_HAD_ROWS


def test_row_that_vanishes_before_its_card_is_read_is_passed_over(
    hub: LoopbackHub, client: HubClient
) -> None:
    """A deletion or a gate between listing and reading is no failure, and the card is read once it can be."""
    release(hub)
    for number in range(3):
        put(hub, f"x/m{number}", "tags: [heretic]", "This is a decensored version of lab/tiny-chat.")
    hub.set_access("x/m1", gated=True)
    hub.inject(Fault("resolve", "expired", repo="x/m2", times=-1))
    memory, _ = crawl(client)
    assert found(memory) == ["x/m0"]
    assert len([one for one in hub.requests if one.repo == "x/m1" and one.route == "resolve"]) == 1
    hub.set_access("x/m1", gated=False)
    hub.clear_faults()
    crawl(client, memory)
    assert found(memory) == ["x/m0", "x/m1", "x/m2"]


def test_the_hub_protocol_is_all_that_is_used(hub: LoopbackHub, client: HubClient) -> None:
    """No `config.json` and no weights are fetched: they would count as downloads."""
    village(hub)
    door: Hub = client
    discover(door, describe(door, REPO), default_sources(), InMemory())
    paths = {one.path.rpartition("/")[2] for one in hub.requests if one.route == "resolve"}
    assert paths == {"README.md"}
