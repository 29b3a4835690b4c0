"""Listings and their rows, from the loopback hub."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from crawler.client import HubClient
from crawler.interface import Access, Cost, RepoId, RepoNotFoundError, Shape
from crawler.query import ListQuery, Order
from forkwatch.demo.hub import LoopbackHub
from tests.crawler.conftest import CONFIG, FILES, REPO
from tests.crawler.shards import safetensors

CARD = b"---\nbase_model: lab/tiny-chat\ntags: [uncensored]\n---\n"


def test_listing_follows_pages_and_filters(cache: Path) -> None:
    """All pages, newest first, only what carries every tag and the name; pages come when needed."""
    with LoopbackHub(page_size=3) as small:
        for number in range(8):
            small.create_repo(f"x/model-{number}")
            tags = b"---\ntags: [one, two]\n---\n" if number % 2 == 0 else b"---\ntags: [one]\n---\n"
            small.commit(f"x/model-{number}", {"README.md": tags})
        with HubClient(endpoint=small.endpoint, token=None, cache=cache) as client:
            names = [row.repo for row in client.list_models(ListQuery(tags=("one",)))]
            assert names == [f"x/model-{number}" for number in reversed(range(8))]
            assert client.cost.requests == 3
            assert [
                row.repo for row in client.list_models(ListQuery(tags=("one", "two"), search="MODEL-4"))
            ] == ["x/model-4"]
            spent = client.cost.requests
            first = next(client.list_models(ListQuery()))
            assert first.created_at is not None
            assert client.cost.requests == spent + 1


def test_query_is_sent_as_the_hub_documents_it(hub: LoopbackHub, client: HubClient) -> None:
    """Every condition, the order, the largest page, and of `expand` nothing that a listing refuses."""
    query = ListQuery(
        tags=("base_model:lab/tiny-chat", "gguf"),
        search="tiny",
        author="lab",
        parameters=(100, 2_000),
        order=Order.MODIFIED,
    )
    list(client.list_models(query))
    sent = hub.requests[-1].query
    assert [pair for pair in sent if pair[0] != "expand"] == [
        ("filter", "base_model:lab/tiny-chat"),
        ("filter", "gguf"),
        ("search", "tiny"),
        ("author", "lab"),
        ("num_parameters", "min:100,max:2000"),
        ("sort", "lastModified"),
        ("limit", "1000"),
    ]
    assert {"sha", "config", "safetensors", "gguf", "gated"} <= {
        value for key, value in sent if key == "expand"
    }
    assert list(client.list_models(ListQuery(author="nobody"))) == []
    assert [row.repo for row in client.list_models(ListQuery(author="lab"))] == [REPO]


def test_row_says_all_that_a_crawl_needs(hub: LoopbackHub, client: HubClient) -> None:
    """Commit, ids, access, figures, shape and an adapter's base: in a list, or alone for one call."""
    adapter = b'{"base_model_name_or_path": "lab/tiny-chat", "peft_type": "LORA"}'
    date = datetime(2026, 3, 1, tzinfo=UTC)
    hub.create_repo("a/full", gated=True, downloads=5, likes=2, created_at=date)
    files = {
        "config.json": CONFIG,
        "model.safetensors": safetensors({"w": 300}),
        "adapter_config.json": adapter,
        "README.md": CARD,
    }
    commit = hub.commit("a/full", files)
    row = client.summary(RepoId("a/full"))
    assert (row.repo, row.commit, row.access) == ("a/full", commit, Access.GATED)
    assert (row.created_at, row.downloads, row.likes) == (date, 5, 2)
    assert row.shape == Shape("llama", 300)
    assert row.adapter_base == "lab/tiny-chat"
    assert len(row.object_id) == 24
    assert {"base_model:lab/tiny-chat", "uncensored"} <= set(row.tags)
    assert client.cost == Cost(1, api=1)
    assert client.snapshot(RepoId("a/full")).object_id == row.object_id
    assert next(client.list_models(ListQuery(author="a"))) == row


def test_summary_follows_a_rename_and_misses_what_is_gone(hub: LoopbackHub, client: HubClient) -> None:
    """The id of the answer is the present one; the Hub's own id stays."""
    before = client.summary(REPO)
    hub.rename_repo(REPO, "lab/renamed")
    after = client.summary(REPO)
    assert (after.repo, after.object_id) == ("lab/renamed", before.object_id)
    hub.delete_repo("lab/renamed")
    with pytest.raises(RepoNotFoundError):
        client.summary(RepoId("lab/renamed"))


def test_crawl_counts_no_download(hub: LoopbackHub, client: HubClient) -> None:
    """Nothing fetches `config.json` or a GGUF file, which would count as one."""
    hub.commit(REPO, FILES | {"model.gguf": b"GGUF", "README.md": CARD})
    list(client.list_models(ListQuery()))
    client.summary(REPO)
    client.snapshot(REPO)
    fetched = [request.path.rpartition("/")[2] for request in hub.requests if request.route == "resolve"]
    assert fetched == ["README.md"]


@pytest.mark.parametrize("order", Order)
def test_walk_ends_at_the_first_row_that_is_too_old(cache: Path, order: Order) -> None:
    """By the query's own order; a row exactly as old is still told; later pages are not read."""
    with LoopbackHub(page_size=2) as small:
        dates = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 8)]
        for number, date in enumerate(dates):
            small.create_repo(f"x/m-{number}", created_at=date)
        with HubClient(endpoint=small.endpoint, token=None, cache=cache) as client:
            rows = list(client.list_models(ListQuery(order=order), since=dates[4]))
            assert [row.repo for row in rows] == ["x/m-6", "x/m-5", "x/m-4"]
            assert client.cost.requests == 2
