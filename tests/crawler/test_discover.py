from __future__ import annotations

import itertools
import logging

import pytest

from crawler.client import HubClient
from crawler.discover import default_sources, discover, merge
from crawler.interface import Candidate, Channel, Claim, HubUnavailableError, Relation, RepoId, Source
from crawler.sources.declared import DeclaredSource
from crawler.sources.names import NameSource
from crawler.sources.tags import TagSource
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.crawler.conftest import REPO

A, B = RepoId("a/one"), RepoId("b/two")


def put(hub: LoopbackHub, repo: str, card: str = "", prose: str = "") -> None:
    hub.create_repo(repo)
    hub.commit(repo, {"README.md": f"---\n{card}\n---\n{prose}\n".encode()})


def found(source: Source, client: HubClient) -> list[str]:
    return sorted(candidate.repo for candidate in source.candidates(client, REPO))


def test_merge_does_not_depend_on_order() -> None:
    """One candidate a repository with all channels and claims, sorted, the release left out."""
    named, based = Claim(None, None, "name"), Claim(REPO, Relation.FINETUNE, "base")
    candidates = [
        Candidate(B, (Channel.NAME,), (named,)),
        Candidate(A, (Channel.TAG,), ()),
        Candidate(B, (Channel.DECLARED,), (based, named)),
        Candidate(RepoId("LAB/Tiny-Chat"), (Channel.NAME,), (named,)),
    ]
    expected = (
        Candidate(A, (Channel.TAG,), ()),
        Candidate(B, (Channel.DECLARED, Channel.NAME), (based, named)),
    )
    for order in itertools.permutations(candidates):
        assert merge(order, REPO) == expected


def test_nothing_found_is_an_empty_result(client: HubClient) -> None:
    """No forks is an answer, and the caller's to judge."""
    assert discover(client, REPO, default_sources()) == ()


def test_declared_forks_of_forks(hub: LoopbackHub, client: HubClient) -> None:
    """The tree is walked down to the asked level, with each repository's own parent as its claim."""
    put(hub, "x/child", "base_model: lab/tiny-chat\nbase_model_relation: adapter")
    put(hub, "x/grandchild", "base_model: x/child")
    put(hub, "x/great", "base_model: x/grandchild")
    put(hub, "x/other", "base_model: lab/else")
    assert found(DeclaredSource(levels=1), client) == ["x/child"]
    assert found(DeclaredSource(levels=2), client) == ["x/child", "x/grandchild"]
    by_repo = {one.repo: one for one in DeclaredSource().candidates(client, REPO)}
    assert set(by_repo) == {"x/child", "x/grandchild", "x/great"}
    assert [(c.base, c.relation) for c in by_repo[RepoId("x/child")].claims] == [(REPO, Relation.ADAPTER)]
    assert [c.base for c in by_repo[RepoId("x/great")].claims] == ["x/grandchild"]


def test_declared_circles_end(hub: LoopbackHub, client: HubClient) -> None:
    """Repositories that name each other, themselves or the release as a child are visited once."""
    hub.commit(REPO, {"README.md": b"---\nbase_model: x/b\n---\n"})
    put(hub, "x/a", "base_model: [lab/tiny-chat, x/b, x/a]")
    put(hub, "x/b", "base_model: x/a")
    assert found(DeclaredSource(levels=50), client) == ["x/a", "x/b"]
    assert client.cost.requests == 3


def test_declared_walk_is_bounded_aloud(
    hub: LoopbackHub, client: HubClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The bound cuts the far descendants, and says so."""
    for number in range(3):
        put(hub, f"x/child-{number}", "base_model: lab/tiny-chat")
    with caplog.at_level(logging.WARNING):
        assert len(found(DeclaredSource(max_listings=2), client)) == 3
    assert client.cost.requests == 2
    assert "not looked up" in caplog.text


def test_names_in_every_spelling(hub: LoopbackHub, client: HubClient) -> None:
    """Separators, case and additions are found; longer words are not; few queries are made."""
    for name in (
        "x/Tiny-Chat-uncensored",
        "x/tiny_chat-GGUF",
        "x/TinyChat",
        "my-tiny-chat/else",
        "x/tiny-chatter",
    ):
        put(hub, name)
    assert found(NameSource(), client) == ["x/Tiny-Chat-uncensored", "x/TinyChat", "x/tiny_chat-GGUF"]
    assert client.cost.requests == 3
    (claim,) = next(NameSource().candidates(client, REPO)).claims
    assert claim.base is None


def test_tags_count_when_something_points_at_the_release(hub: LoopbackHub, client: HubClient) -> None:
    """By name, by base, or by its card; a stranger with the same tag is nobody's fork."""
    put(hub, "x/tiny-chat-abliterated", "tags: [abliterated]")
    put(hub, "x/declared", "tags: [uncensored]\nbase_model: lab/tiny-chat")
    put(
        hub,
        "x/shadow",
        "tags: [heretic, uncensored]",
        "This is a decensored version of [it](https://huggingface.co/lab/tiny-chat).",
    )
    put(hub, "x/hint", "tags: [decensored]", "An uncensored version of Tiny Chat, made at home.")
    put(
        hub,
        "x/stranger",
        "tags: [uncensored]",
        "This is an uncensored version of [m](https://huggingface.co/lab/else).",
    )
    put(hub, "x/silent", "tags: [uncensored]")
    put(hub, "x/tiny-chat-story")
    candidates = list(TagSource().candidates(client, REPO))
    assert sorted(one.repo for one in candidates) == [
        "x/declared",
        "x/hint",
        "x/shadow",
        "x/tiny-chat-abliterated",
    ]
    shadow = next(one for one in candidates if one.repo == "x/shadow")
    assert {claim.base for claim in shadow.claims} == {None, REPO}
    assert any("tag: heretic" in claim.statement for claim in shadow.claims)


def test_fork_that_inherits_the_grandparent_is_found(hub: LoopbackHub, client: HubClient) -> None:
    """The tools that push the parent's card leave its `base_model`: it names the release's own base."""
    hub.commit(REPO, {"README.md": b"---\nbase_model: lab/tiny-base\n---\n"})
    said = "This is a decensored version of [lab/tiny-chat](https://huggingface.co/lab/tiny-chat)."
    put(hub, "x/inherits", "tags: [heretic]\nbase_model: lab/tiny-base", said)
    put(
        hub,
        "x/cousin",
        "tags: [heretic]\nbase_model: lab/tiny-base",
        "This is a decensored version of y/other.",
    )
    put(hub, "x/foreign", "tags: [heretic]\nbase_model: y/other", said)
    assert found(TagSource(("heretic",)), client) == ["x/inherits"]
    read = {request.repo for request in hub.requests if request.route == "info"}
    assert "x/foreign" not in read


def test_cards_are_read_for_a_few_only(hub: LoopbackHub, client: HubClient) -> None:
    """The bound on cards is kept, newest first, and a repository that vanished is passed over."""
    for number in range(6):
        put(hub, f"x/m{number}", "tags: [heretic]", "This is a decensored version of lab/tiny-chat.")
    assert found(TagSource(("heretic",), max_cards=2), client) == ["x/m4", "x/m5"]
    hub.set_access("x/m5", disabled=True)
    hub.inject(Fault("info", "expired", repo="x/m4"))
    assert found(TagSource(("heretic",), max_cards=3), client) == ["x/m3"]


def test_all_channels_together(hub: LoopbackHub, client: HubClient) -> None:
    """A fork that three channels find is one candidate that says so."""
    put(hub, "x/tiny-chat-free", "tags: [uncensored]\nbase_model: lab/tiny-chat")
    put(hub, "x/plain", "base_model: lab/tiny-chat")
    all_, plain = discover(client, REPO, default_sources())[::-1]
    assert (plain.repo, plain.channels) == ("x/plain", (Channel.DECLARED,))
    assert all_.channels == (Channel.DECLARED, Channel.TAG, Channel.NAME)
    assert [claim.base for claim in all_.claims] == [REPO, None, None]
    assert [source.channel for source in default_sources(())] == [Channel.DECLARED, Channel.NAME]


def test_failing_channel_fails_the_discovery(hub: LoopbackHub, client: HubClient) -> None:
    """Half a list would read as "no more forks"."""
    put(hub, "x/plain", "base_model: lab/tiny-chat")
    hub.inject(Fault("list", "503", times=-1))
    with pytest.raises(HubUnavailableError):
        discover(client, REPO, default_sources())
