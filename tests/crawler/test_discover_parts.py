"""Runs that look at a part only, or at a Hub of which a part is broken: nothing is lost for good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from crawler.client import HubClient
from crawler.interface import Channel
from crawler.walk import FEED
from forkwatch.demo.hub import LoopbackHub
from tests.crawler.family import VILLAGE, crawl, found, member, put, release, village


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
    """Its rows in the feed are recognised all the same; when that is skipped, all that it covers is walked."""
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
