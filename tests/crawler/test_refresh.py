from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from crawler.client import HubClient
from crawler.discover import describe
from crawler.interface import Access, HubUnavailableError, RepoId, RepoSummary
from crawler.refresh import LastSeen, refresh
from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.demo.hub.faults import Kind
from tests.crawler.conftest import REPO
from tests.crawler.family import crawl, put, release

T0 = datetime(2026, 6, 1, tzinfo=UTC)


def known(client: HubClient) -> list[LastSeen]:
    """All members of a fresh crawl, looked at in the order of their names."""
    memory, _ = crawl(client)
    rows = [one.seen for _, one in sorted(memory.members().items()) if one.seen is not None]
    return [LastSeen(row, T0 + timedelta(minutes=number)) for number, row in enumerate(rows)]


def looks(
    client: HubClient, before: Sequence[LastSeen], budget: int | None = None
) -> dict[str, RepoSummary | None]:
    """The news by the name that was known."""
    target = describe(client, REPO)
    return {was.repo: now for was, now in refresh(client, target, before, budget)}


@pytest.fixture
def forks(hub: LoopbackHub, client: HubClient) -> list[LastSeen]:
    """Five that declare the release, and three that are named alike."""
    release(hub)
    for number in range(5):
        put(hub, f"d/child-{number}", "base_model: lab/tiny-chat")
    for number in range(3):
        put(hub, f"n/tiny-chat-{number}")
    return known(client)


def test_declared_forks_are_seen_in_one_call(
    hub: LoopbackHub, client: HubClient, forks: list[LastSeen]
) -> None:
    """Presence, commit, access and counts of all of them, from one page."""
    put(hub, "d/child-0", "base_model: lab/tiny-chat", "More.", created=True)
    hub.set_access("d/child-1", gated=True)
    before = client.cost
    news = looks(client, forks, budget=0)
    assert (client.cost - before).requests == 2
    assert sorted(news) == [f"d/child-{number}" for number in range(5)]
    was = {one.summary.repo: one.summary for one in forks}
    changed = [name for name, now in news.items() if now is not None and now.commit != was[now.repo].commit]
    assert changed == ["d/child-0"]
    gated = news["d/child-1"]
    assert gated is not None
    assert gated.access is Access.GATED


def test_missing_forks_are_confirmed_first(
    hub: LoopbackHub, client: HubClient, forks: list[LastSeen]
) -> None:
    """Deleted, private and renamed ones are told apart from those that only changed their card."""
    hub.delete_repo("d/child-0")
    hub.set_access("d/child-1", private=True)
    hub.rename_repo("d/child-2", "d/moved")
    put(hub, "d/child-3", "license: mit", created=True)
    before = client.cost
    news = looks(client, forks, budget=3)
    assert (client.cost - before).requests == 2 + 3
    assert news["d/child-0"] is None
    assert news["d/child-1"] is None
    moved, changed = news["d/child-2"], news["d/child-3"]
    assert moved is not None
    assert changed is not None
    assert moved.repo == "d/moved"
    assert changed.repo == "d/child-3"


def test_name_that_was_registered_again_is_seen_by_its_id(
    hub: LoopbackHub, client: HubClient, forks: list[LastSeen]
) -> None:
    """The row of the name is given, and its `_id` says that it is another repository."""
    hub.delete_repo("d/child-0")
    put(hub, "d/child-0", "base_model: lab/tiny-chat")
    now = looks(client, forks)["d/child-0"]
    assert now is not None
    assert now.object_id != forks[0].summary.object_id


def test_renamed_fork_whose_name_was_taken_over_is_followed_by_its_id(
    hub: LoopbackHub, client: HubClient, forks: list[LastSeen]
) -> None:
    """The old name now belongs to another repository, and the fork is where it went."""
    hub.rename_repo("d/child-0", "d/moved")
    put(hub, "d/child-0", "base_model: lab/tiny-chat")
    now = looks(client, forks)["d/child-0"]
    assert now is not None
    assert now.repo == "d/moved"


def test_others_are_looked_at_oldest_first_within_the_budget(
    client: HubClient, forks: list[LastSeen]
) -> None:
    """Over several runs everything is looked at, whatever the order in which it is given."""
    news = looks(client, forks[::-1], budget=2)
    assert {name for name in news if name.startswith("n/")} == {"n/tiny-chat-0", "n/tiny-chat-1"}


def test_default_budget_is_small(client: HubClient, forks: list[LastSeen]) -> None:
    """Twenty calls, or one for each hundred known."""
    before = client.cost
    many = [LastSeen(forks[-1].summary, T0 + timedelta(seconds=number)) for number in range(2500)]
    assert len(list(refresh(client, describe(client, REPO), many))) == 25
    assert len(list(refresh(client, describe(client, REPO), many[:100]))) == 20
    assert (client.cost - before).requests == 2 * 2 + 25 + 20


def test_nothing_known_costs_nothing(client: HubClient) -> None:
    """No listing is made for a family that is not known."""
    target = describe(client, REPO)
    before = client.cost
    assert list(refresh(client, target, ())) == []
    assert client.cost == before


def test_failing_listing_is_not_a_deleted_fork(
    hub: LoopbackHub, client: HubClient, forks: list[LastSeen]
) -> None:
    """An error ends the run: nothing is reported gone that was not confirmed."""
    target = describe(client, REPO)
    hub.delete_repo("d/child-0")
    hub.inject(Fault("list", "503", times=-1))
    with pytest.raises(HubUnavailableError):
        list(refresh(client, target, forks))


def test_failing_hub_is_not_a_deleted_fork(
    hub: LoopbackHub, client: HubClient, forks: list[LastSeen]
) -> None:
    """After three failures the rest is the next run's; nothing is reported gone that is not confirmed."""
    target = describe(client, REPO)
    hub.delete_repo("d/child-0")
    hub.inject(Fault("info", "503", times=-1))
    failed: dict[RepoId, str] = {}
    news = list(refresh(client, target, forks, failed=failed))
    assert len(failed) == 3
    assert [now for was, now in news if was.repo == "d/child-0"] == [forks[0].summary]
    assert None not in [now for _, now in news]


@pytest.mark.parametrize("kind", ["500", "expired", "not-json"])
def test_one_that_cannot_be_looked_at_does_not_stop_the_others(
    hub: LoopbackHub, client: HubClient, forks: list[LastSeen], kind: Kind
) -> None:
    """It counts as looked at, so it is the last of the queue next time; one that is gone stays gone."""
    before = [replace(one, gone=one.summary.repo == "n/tiny-chat-1") for one in forks]
    for number in range(2):
        hub.inject(Fault("info", kind, repo=f"n/tiny-chat-{number}", times=-1))
    failed: dict[RepoId, str] = {}
    news = dict(refresh(client, describe(client, REPO), before, failed=failed))
    assert set(failed) == {"n/tiny-chat-0", "n/tiny-chat-1"}
    assert news[forks[5].summary] == forks[5].summary
    assert news[forks[6].summary] is None
    assert news[forks[7].summary] is not None


def test_queue_starves_nobody(hub: LoopbackHub, client: HubClient, forks: list[LastSeen]) -> None:
    """Adapters that only their configuration declares, which no filter knows, wait like everybody else;
    and forks that stay away from the listing take half of the calls at most.
    """
    adapters = [
        LastSeen(RepoSummary(repo=RepoId(f"p/adapter-{number}"), adapter_base=REPO), T0)
        for number in range(4)
    ]
    old = [replace(one, checked=T0 - timedelta(days=1)) for one in forks if one.summary.repo[0] == "n"]
    news = looks(client, [*adapters, *old], budget=3)
    assert set(news) == {one.summary.repo for one in old}
    away = [
        LastSeen(RepoSummary(repo=RepoId(f"z/away-{number}"), tags=(f"base_model:{REPO}",)), T0)
        for number in range(4)
    ]
    news = looks(client, [*away, *old], budget=4)
    assert set(news) == {"z/away-0", "z/away-1", "n/tiny-chat-0", "n/tiny-chat-1"}


def test_rows_that_somebody_has_listed_are_not_listed_again(client: HubClient, forks: list[LastSeen]) -> None:
    """No call is made for them."""
    before, target = client.cost, describe(client, REPO)
    rows = [one.summary for one in forks]
    assert len(list(refresh(client, target, forks, listed=rows))) == len(forks)
    assert (client.cost - before).requests == 1
