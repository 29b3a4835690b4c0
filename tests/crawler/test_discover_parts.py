"""Runs that look at a part only, or at a Hub of which a part is broken: nothing is lost for good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from crawler.client import HubClient
from crawler.interface import Channel, HubUnavailableError
from crawler.walk import FEED
from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.demo.hub.faults import Kind
from tests.crawler.family import VILLAGE, crawl, decensored, found, member, put, release, village


@pytest.mark.parametrize("channel", [channel for channel in Channel if channel is not Channel.DIRECT])
def test_run_with_one_channel_costs_no_other_run_a_fork(
    hub: LoopbackHub, client: HubClient, channel: Channel
) -> None:
    """Before the first full run and between two, whichever channel it was."""
    village(hub)
    memory, _ = crawl(client, walk={channel}, aside=True)
    assert memory.watermark(FEED) is None
    put(hub, "d/of-a-leaf", "base_model: d/great")
    crawl(client, memory)
    assert found(memory) == sorted([*VILLAGE, "d/of-a-leaf"])
    mark = memory.watermark(FEED)
    put(hub, "y/late", "base_model: d/great")
    put(hub, "y/tiny-chat-late", "tags: [heretic]")
    crawl(client, memory, walk={channel}, aside=True)
    assert memory.watermark(FEED) == mark
    crawl(client, memory)
    assert {"y/late", "y/tiny-chat-late"} <= set(found(memory))
    assert {Channel.TAG, Channel.NAME} <= set(member(memory, "y/tiny-chat-late").channels)


def test_row_of_a_chosen_listing_goes_past_every_channel(hub: LoopbackHub, client: HubClient) -> None:
    """The tag's listing shows a child of the release, and its watermark moves past it: it is kept."""
    release(hub)
    put(hub, "x/child", "base_model: lab/tiny-chat\ntags: [heretic]")
    memory, done = crawl(client, walk={Channel.TAG}, aside=True)
    assert memory.watermark("tag:heretic") is not None
    assert memory.watermark("name:tiny-chat") is None
    assert set(member(memory, "x/child").channels) == {Channel.DECLARED, Channel.TAG}
    assert done.listings == 4


def test_channel_that_was_left_out_for_a_while_loses_nothing(hub: LoopbackHub, client: HubClient) -> None:
    """Its rows in the feed are recognised all the same; when it is skipped, all that it covers is walked."""
    release(hub)
    put(hub, "x/child", "base_model: lab/tiny-chat")
    memory, _ = crawl(client)
    start = datetime(2026, 2, 1, tzinfo=UTC)
    hub.create_repo("y/grandchild", created_at=start)
    put(hub, "y/grandchild", "base_model: x/child", created=True)
    for number in range(3100):
        hub.create_repo(f"noise/m{number}", created_at=start + timedelta(minutes=10 * number + 10))
    _, done = crawl(client, memory, walk={Channel.NAME})
    assert done.feed_skipped
    hub.create_repo("y/other", created_at=start + timedelta(days=60))
    put(hub, "y/other", "base_model: x/child", created=True)
    crawl(client, memory, walk={Channel.NAME})
    crawl(client, memory)
    assert found(memory) == ["x/child", "y/grandchild", "y/other"]


@pytest.mark.parametrize("kind", ["500", "reset"])
def test_card_that_cannot_be_had_stops_nothing(hub: LoopbackHub, client: HubClient, kind: Kind) -> None:
    """Everything else is found; its listing is not complete, and it is read as soon as that works."""
    village(hub)
    whole, _ = crawl(client)
    hub.inject(Fault("resolve", kind, repo="s/stated", times=-1))
    memory, done = crawl(client)
    assert set(VILLAGE) - {"s/stated"} <= {*found(memory), "q/child-of-late", "s/of-a-fork"}
    assert done.unread == 1
    hub.clear_faults()
    crawl(client, memory)
    assert found(memory) == found(whole)


def test_row_of_a_reading_that_cannot_be_had_is_asked_for_again(hub: LoopbackHub, client: HubClient) -> None:
    """A card that was read before its parent was known; the repository answers 500 when that is needed."""
    release(hub)
    hub.create_repo("s/of-a-fork", created_at=datetime(2025, 6, 1, tzinfo=UTC))
    put(hub, "s/of-a-fork", "tags: [heretic]", decensored("z/child"), created=True)
    put(hub, "x/newer", "tags: [heretic]")
    memory, _ = crawl(client)
    put(hub, "z/child", "base_model: lab/tiny-chat")
    hub.inject(Fault("info", "500", repo="s/of-a-fork", times=-1))
    _, done = crawl(client, memory)
    assert (found(memory), done.unread) == (["z/child"], 1)
    hub.clear_faults()
    crawl(client, memory)
    assert found(memory) == ["s/of-a-fork", "z/child"]


def test_listing_that_fails_is_the_next_runs(hub: LoopbackHub, client: HubClient) -> None:
    """Two in a row stop nothing; what they had is found once they work, and the run says what it left out."""
    village(hub)
    hub.inject(Fault("list", "504", times=6, after=3))  # two listings, three attempts each
    memory, done = crawl(client)
    assert len(done.failed) == 2
    assert all("504" in why for why in done.failed.values())
    assert all(memory.watermark(key) is None for key in done.failed)
    assert len(found(memory)) >= len(VILLAGE) - 2
    assert not crawl(client, memory)[1].failed
    assert found(memory) == sorted(VILLAGE)


def test_feed_that_fails_stays_where_it_was(hub: LoopbackHub, client: HubClient) -> None:
    """Before its first watermark nothing that it should counts as walked; later, the next run goes on."""
    village(hub)
    hub.inject(Fault("list", "504", times=3))
    memory, done = crawl(client)
    assert set(done.failed) == {FEED}
    assert memory.watermark(FEED) is None
    assert memory.watermark("declared:d/great") is None
    put(hub, "y/between", "base_model: d/great")
    crawl(client, memory)
    put(hub, "y/later", "base_model: d/great")
    mark = memory.watermark(FEED)
    hub.inject(Fault("list", "504", times=3))
    crawl(client, memory)
    assert memory.watermark(FEED) == mark
    crawl(client, memory)
    assert found(memory) == sorted([*VILLAGE, "y/between", "y/later"])


def test_run_in_which_nothing_could_be_listed_fails(hub: LoopbackHub, client: HubClient) -> None:
    """However few listings it has."""
    release(hub)
    hub.inject(Fault("list", "503", times=-1))
    with pytest.raises(HubUnavailableError):
        crawl(client, walk={Channel.STATEMENT})


def test_row_from_the_future_hides_nothing(hub: LoopbackHub, client: HubClient) -> None:
    """A date of next century moves no watermark beyond today, of the feed or of a listing."""
    release(hub)
    hub.create_repo("x/tiny-chat-of-2126", created_at=datetime(2126, 1, 1, tzinfo=UTC))
    put(hub, "x/tiny-chat-of-2126", "tags: [heretic]", created=True)
    now = datetime(2026, 1, 2, tzinfo=UTC)
    memory, _ = crawl(client, now=now)
    assert found(memory) == ["x/tiny-chat-of-2126"]
    assert memory.watermark(FEED) == memory.watermark("tag:heretic") == now
    hub.create_repo("y/tiny-chat-later", created_at=now + timedelta(days=1))
    put(hub, "y/tiny-chat-later", created=True)
    crawl(client, memory, now=now + timedelta(days=2))
    assert "y/tiny-chat-later" in found(memory)


def test_child_that_is_made_public_late_is_found(hub: LoopbackHub, client: HubClient) -> None:
    """Its dates are older than every watermark; the release's own listing is walked in full, and told."""
    release(hub)
    put(hub, "x/child", "base_model: lab/tiny-chat")
    hub.create_repo("x/hidden", created_at=datetime(2025, 6, 1, tzinfo=UTC))
    put(hub, "x/hidden", "base_model: lab/tiny-chat", created=True)
    hub.set_access("x/hidden", private=True)
    memory, _ = crawl(client)
    assert found(memory) == ["x/child"]
    hub.set_access("x/hidden", private=False)
    _, done = crawl(client, memory)
    assert found(memory) == ["x/child", "x/hidden"]
    assert done.children is not None
    assert {row.repo for row in done.children} == {"x/child", "x/hidden"}


def test_listing_that_was_cut_is_told_in_every_run(hub: LoopbackHub, client: HubClient) -> None:
    """What lies below its newest rows was never looked at, and no later run may read as complete."""
    release(hub)
    for number in range(5):
        put(hub, f"x/tiny-chat-{number}")
    memory, done = crawl(client, max_rows=3, walk={Channel.NAME})
    assert done.cut == ["name:tiny-chat"]
    for _ in range(2):
        assert crawl(client, memory, walk={Channel.NAME})[1].cut == ["name:tiny-chat"]
    assert crawl(client)[1].cut == []


def test_hub_without_cards_costs_few_calls(hub: LoopbackHub, client: HubClient) -> None:
    """What needs no card is found, and the cards are read when they can be."""
    release(hub)
    for number in range(100):
        put(hub, f"s/m{number}", "tags: [heretic]", decensored("lab/tiny-chat"))
    put(hub, "x/child", "base_model: lab/tiny-chat")
    hub.inject(Fault("resolve", "503", times=-1))
    memory, done = crawl(client)
    assert (found(memory), done.unread) == (["x/child"], 100)
    assert len([one for one in hub.requests if one.route == "resolve"]) <= 3 * 18
    hub.clear_faults()
    crawl(client, memory)
    assert len(found(memory)) == 101


def test_row_of_broken_cards_does_not_hide_the_others(hub: LoopbackHub, client: HubClient) -> None:
    """Thirty that stay broken, the newest of all: the older ones are read, in a few runs at most."""
    release(hub)
    for number in range(60):
        put(hub, f"s/m{number}", "tags: [heretic]", decensored("lab/tiny-chat"))
    for number in range(30):
        put(hub, f"z/broken{number}", "tags: [heretic]", "Nothing.")
        hub.inject(Fault("resolve", "500", repo=f"z/broken{number}", times=-1))
    memory, _ = crawl(client)
    for _ in range(3):
        crawl(client, memory)
    assert len(found(memory)) == 60
