"""Each channel alone: what it recognises in a row, and what it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from crawler.client import HubClient
from crawler.discover import default_sources
from crawler.interface import Access, Candidate, Channel, Claim, Commit, Relation, RepoId, RepoSummary, Shape
from crawler.memory import InMemory, Recollection
from crawler.sources.declared import DeclaredSource
from crawler.sources.interface import Batch, Source, Target
from crawler.sources.name import NameSource
from crawler.sources.namespace import NamespaceSource
from crawler.sources.rows import may_fit, same_architecture, same_shape
from crawler.sources.shape import ShapeSource
from crawler.sources.statement import StatementSource
from crawler.sources.tag import TagSource
from forkwatch.demo.hub import LoopbackHub
from tests.crawler.conftest import REPO
from tests.crawler.family import PARAMETERS, crawl, decensored, found, member, put, release

BASE = RepoId("lab/tiny-base")
MEMBER = RepoId("a/known")
LLAMA = Shape("llama", PARAMETERS)


def row(repo: str, *tags: str, shape: Shape | None = None, adapter_base: str | None = None) -> RepoSummary:
    return RepoSummary(
        repo=RepoId(repo), commit=Commit("0" * 40), tags=tags, shape=shape, adapter_base=adapter_base
    )


def family_of(*members: Candidate) -> Recollection:
    memory = InMemory()
    memory.keep(Batch("seed", None, members, 0))
    return Recollection(Target(REPO, LLAMA, frozenset({BASE})), memory)


@pytest.fixture
def family() -> Recollection:
    """The release, and one declared fork of it."""
    return family_of(Candidate(MEMBER, (Channel.DECLARED,), ()))


def recognised(source: Source, client: HubClient, family: Recollection, *rows: RepoSummary) -> list[str]:
    """Those of the rows that are candidates, each with a claim."""
    hits = [hit for one in rows if (hit := source.recognise(client, one, family)) is not None]
    assert all(hit.channels == (source.channel,) and hit.claims and hit.seen in rows for hit in hits)
    return [hit.repo for hit in hits]


def test_every_channel_has_a_source() -> None:
    """All channels but the user's own word, each once."""
    assert [source.channel for source in default_sources()] == [
        channel for channel in Channel if channel is not Channel.DIRECT
    ]
    assert Channel.TAG not in {source.channel for source in default_sources(())}


def test_declared(client: HubClient, family: Recollection) -> None:
    """The release or a member as base, in tags or in a PEFT configuration, in any letters; nothing else."""
    rows = (
        row("x/tag", "base_model:lab/tiny-chat"),
        row("x/relation", "base_model:quantized:lab/tiny-chat"),
        row("x/of-member", "base_model:A/KNOWN"),
        row("x/peft", adapter_base="lab/tiny-chat"),
        row("x/one-of-two", "base_model:merge:y/other", "base_model:merge:a/known"),
        row("x/base", "base_model:lab/tiny-base"),
        row("x/path", adapter_base="/home/lab/tiny-chat"),
        row("x/none", "base_model:", "base_model:lab/tiny-chat/extra", "tiny-chat"),
        row("a/known", "base_model:a/known"),
    )
    assert recognised(DeclaredSource(), client, family, *rows) == [
        "x/tag",
        "x/relation",
        "x/of-member",
        "x/peft",
        "x/one-of-two",
    ]
    peft = DeclaredSource().recognise(client, rows[3], family)
    assert peft is not None
    assert peft.claims == (Claim(REPO, Relation.ADAPTER, "base_model_name_or_path: lab/tiny-chat"),)


def test_adapters_are_listed_for_what_only_their_configuration_says(
    hub: LoopbackHub, client: HubClient
) -> None:
    """A PEFT repository without a card that declares anything is found, and its base quoted."""
    release(hub)
    for name, base in (("x/lora", REPO), ("x/other", "y/other"), ("x/local", "/data/tiny")):
        put(hub, name, files={"adapter_config.json": json.dumps({"base_model_name_or_path": base}).encode()})
    memory, _ = crawl(client, sources=[DeclaredSource()])
    assert found(memory) == ["x/lora"]


def test_sibling_of_the_release_needs_its_whole_name(client: HubClient) -> None:
    """`tiny-7b` is the name of the base too: a finetune of the base is not a fork by that name."""
    target = Target(RepoId("lab/tiny-7b-instruct"), None, frozenset({RepoId("lab/tiny-7b")}))
    family = Recollection(target, InMemory())
    rows = (
        row("x/tiny-7b-mine", "base_model:lab/tiny-7b"),
        row("x/tiny-7b-instruct-mine", "base_model:lab/tiny-7b"),
        row("x/tiny-7b-free"),
        row("lab/tiny-7b"),
    )
    expected = ["x/tiny-7b-instruct-mine", "x/tiny-7b-free"]
    assert recognised(NameSource(), client, family, *rows) == expected


def test_card_that_names_another_parent_outweighs_likeness(hub: LoopbackHub, client: HubClient) -> None:
    """The same shape, or the same account, is no hint when the card says whose fork it is."""
    release(hub)
    put(hub, "x/theirs", "tags: [heretic]", decensored("y/other"), shape=("llama", PARAMETERS))
    put(hub, "x/ours", "", "A model.", shape=("llama", PARAMETERS))
    put(hub, "x/child", "base_model: lab/tiny-chat")
    for sources in (default_sources(), default_sources()[::-1]):
        assert found(crawl(client, sources=sources)[0]) == ["x/child", "x/ours"]


def test_tag(client: HubClient, family: Recollection) -> None:
    """A tag of removed refusals counts with the name, the release or a member beside it."""
    rows = (
        row("x/tiny-chat-free", "Uncensored"),
        row("x/declared", "heretic", "base_model:lab/tiny-chat"),
        row("x/of-member", "abliterated", "base_model:a/known"),
        row("x/stranger", "abliterated", "base_model:y/other"),
        row("x/silent", "decensored"),
        row("x/tiny-chat-plain"),
        row("lab/tiny-base", "heretic", "base_model:lab/tiny-chat"),
    )
    expected = ["x/tiny-chat-free", "x/declared", "x/of-member"]
    assert recognised(TagSource(), client, family, *rows) == expected
    copy = row("x/copy", "heretic", "base_model:lab/tiny-base", shape=LLAMA)
    closed = replace(copy, repo=RepoId("x/closed"), access=Access.GATED)
    shapeless = replace(closed, shape=None)
    assert recognised(TagSource(), client, family, copy, closed, shapeless) == ["x/closed"]
    assert recognised(TagSource(("jailbroken",)), client, family, *rows) == []
    hit = TagSource().recognise(client, rows[0], family)
    assert hit is not None
    assert hit.claims == (Claim(None, None, "tag: Uncensored"),)


def test_name_in_every_spelling(hub: LoopbackHub, client: HubClient) -> None:
    """Separators, case and additions are found; longer words are not; few queries are made."""
    for name in (
        "x/Tiny-Chat-uncensored",
        "x/tiny_chat-GGUF",
        "x/TinyChat",
        "my-tiny-chat/else",
        "x/tiny-chatter",
    ):
        put(hub, name)
    memory, _ = crawl(client, sources=[NameSource()])
    assert found(memory) == ["x/Tiny-Chat-uncensored", "x/TinyChat", "x/tiny_chat-GGUF"]
    assert len({dict(one.query).get("search") for one in hub.requests if one.route == "list"} - {None}) == 3
    assert [claim.base for claim in member(memory, "x/TinyChat").claims] == [None]


def test_statement_names_the_parent_that_the_metadata_hides(hub: LoopbackHub, client: HubClient) -> None:
    """With no base, or with the release's own one, the sentence of the card decides, and is quoted."""
    release(hub)
    put(hub, "x/none", "tags: [heretic]", decensored(REPO))
    put(hub, "x/inherits", "tags: [heretic]\nbase_model: lab/tiny-base", decensored(REPO))
    put(hub, "x/untagged", "", decensored(REPO), shape=("llama", PARAMETERS))
    put(hub, "x/by-name", "tags: [decensored]", "An uncensored version of Tiny Chat, made at home.")
    put(hub, "x/cousin", "tags: [heretic]\nbase_model: lab/tiny-base", decensored("y/other"))
    put(hub, "x/silent", "tags: [heretic]")
    memory, _ = crawl(client, sources=[TagSource(), StatementSource(), ShapeSource()])
    assert found(memory, Channel.STATEMENT) == ["x/by-name", "x/inherits", "x/none", "x/untagged"]
    said = [claim.statement for claim in member(memory, "x/inherits").claims if claim.base == REPO]
    assert said == [decensored(REPO)]


def test_statement_reads_only_what_can_matter(hub: LoopbackHub, client: HubClient) -> None:
    """No card of somebody else's fork, of another shape, or of an untagged repository of no shape."""
    release(hub)
    put(hub, "x/foreign", "tags: [heretic]\nbase_model: y/other", decensored(REPO))
    put(hub, "x/large", "tags: [heretic]", decensored(REPO), shape=("llama", 9 * PARAMETERS))
    put(hub, "x/other-arch", "tags: [heretic]", decensored(REPO), shape=("mamba", PARAMETERS))
    put(hub, "x/plain", "", decensored(REPO))
    put(hub, "x/two-bases", "tags: [heretic]\nbase_model: [lab/tiny-base, y/other]", decensored(REPO))
    memory, done = crawl(client, sources=[TagSource(), StatementSource(), ShapeSource(), NameSource()])
    assert found(memory) == []
    assert done.read == 0
    assert not [one for one in hub.requests if one.route == "resolve"]


def test_reproduce_json_names_parent_and_method(hub: LoopbackHub, client: HubClient) -> None:
    """One more call for a repository that is tagged as reproducible; the claim quotes what the file says."""
    release(hub)
    document = b"""{"version": "3", "settings": {"model": "lab/tiny-chat"},
        "parameters": {"direction_index": 3.5, "abliteration_parameters": {}},
        "hashes": {"model.safetensors": "%s"}}""" % (b"a1" * 32)
    put(
        hub,
        "x/repro",
        "tags: [heretic, reproducible]\nbase_model: lab/tiny-base",
        "Nothing to see.",
        files={"reproduce/reproduce.json": document},
    )
    put(hub, "x/without", "tags: [heretic, reproducible]", "Nothing to see.")
    memory, _ = crawl(client, sources=[TagSource(), StatementSource()])
    assert found(memory) == ["x/repro"]
    (claim,) = (claim for claim in member(memory, "x/repro").claims if claim.base == REPO)
    assert claim.statement == (
        "reproduce.json (version 3): settings.model lab/tiny-chat; "
        f"parameters abliteration_parameters, direction_index; 1 sha256, first {'a1' * 32}"
    )


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"null",
        b'{"settings": 3}',
        b'{"settings": {"model": "../x"}}',
        b"[" * 100_000,
        b"\xff\x00",
    ],
)
def test_broken_reproduce_json_says_nothing(hub: LoopbackHub, client: HubClient, document: bytes) -> None:
    """Wrong types, depth and bytes that are no text make no claim and no failure."""
    release(hub)
    put(hub, "x/m", "tags: [heretic, reproducible]", files={"reproduce/reproduce.json": document})
    assert found(crawl(client)[0]) == []


def test_card_that_is_too_large_says_nothing(hub: LoopbackHub, client: HubClient) -> None:
    """No more than a quarter of a megabyte is read, and none of a card that is kept as LFS."""
    release(hub)
    put(hub, "x/long", "tags: [heretic]", decensored(REPO) + "\n" + "y" * (300 << 10))
    put(hub, "x/lfs", "tags: [heretic]", decensored(REPO) + "\n" + "y" * (11 << 20))
    memory, done = crawl(client)
    assert found(memory) == []
    assert done.read == 2
    assert client.cost.bytes_downloaded < 1 << 20


def test_namespace(client: HubClient, family: Recollection) -> None:
    """Rows of an account that published another fork, if they fit or name the release; no foreign ones."""
    rows = (
        row("a/fits", shape=LLAMA),
        row("a/packed", shape=Shape("llama", PARAMETERS // 8, quantized=True)),
        row("a/tiny-chat-notes"),
        row("a/declared", "base_model:lab/tiny-chat"),
        row("a/unknown"),
        row("a/large", shape=Shape("llama", 2 * PARAMETERS)),
        row("a/foreign", "base_model:y/other", shape=LLAMA),
        row("a/sibling", "base_model:lab/tiny-base", shape=LLAMA),
        row("b/fits", shape=LLAMA),
        row("lab/fits", shape=LLAMA),
        row("a/known", shape=LLAMA),
    )
    expected = ["a/fits", "a/packed", "a/tiny-chat-notes", "a/declared"]
    assert recognised(NamespaceSource(), client, family, *rows) == expected


def test_likeness_does_not_make_an_account_a_publisher(client: HubClient) -> None:
    """A candidate by shape or account alone vouches for no other."""
    weak = family_of(Candidate(MEMBER, (Channel.NAMESPACE, Channel.SHAPE), ()))
    assert list(NamespaceSource().listings(weak)) == []
    assert recognised(NamespaceSource(), client, weak, row("a/fits", shape=LLAMA)) == []


def test_shape(client: HubClient, family: Recollection) -> None:
    """Same architecture, parameter count within 2 %, nothing declared."""
    rows = (
        row("x/same", shape=LLAMA),
        row("x/near", shape=Shape("llama", PARAMETERS + PARAMETERS // 50)),
        row("x/gguf", shape=Shape("llama", PARAMETERS, quantized=True)),
        row("x/far", shape=Shape("llama", PARAMETERS + PARAMETERS // 40)),
        row("x/arch", shape=Shape("qwen3", PARAMETERS)),
        row("x/declared", "base_model:lab/tiny-base", shape=LLAMA),
        row("x/half-known", shape=Shape("llama", None)),
        row("x/unknown"),
        row("lab/tiny-base", shape=LLAMA),
    )
    assert recognised(ShapeSource(), client, family, *rows) == ["x/same", "x/near", "x/gguf"]


@pytest.mark.parametrize("shape", [None, Shape(None, 5), Shape("llama", None)])
def test_release_of_unknown_shape_has_no_shape_listing(shape: Shape | None) -> None:
    """Half of a shape would list half of the Hub."""
    family = Recollection(Target(REPO, shape), InMemory())
    assert list(ShapeSource().listings(family)) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        (Shape("qwen2_moe", 1), Shape("qwen2moe", 1, quantized=True), True),
        (Shape("mistral", 1), Shape("llama", 1, quantized=True), True),
        (Shape("mistral", 1), Shape("mistral", 1, quantized=True), True),
        (Shape("mistral", 1), Shape("llama", 1), False),
        (Shape("llama", 1), Shape("mistral", 1, quantized=True), False),
        (Shape("gemma3_text", 1), Shape("gemma3", 1, quantized=True), True),
        (Shape("qwen2", 1), Shape("qwen3", 1), False),
        (Shape(None, 1), Shape("llama", 1), None),
    ],
)
def test_architectures_as_gguf_names_them(mine: Shape, theirs: Shape, same: bool | None) -> None:
    """llama.cpp calls a Mistral a Llama; between two checkpoints these are different things."""
    assert same_architecture(mine, theirs) is same


def _shapes() -> Iterator[Shape | None]:
    yield from (None, Shape(None, PARAMETERS), Shape("llama", None), LLAMA)
    yield from (Shape("llama", PARAMETERS // 8, quantized=True), Shape("llama", 9, quantized=True))


def test_what_has_the_same_shape_may_fit() -> None:
    """The strict rule is part of the lenient one, for every pair of shapes."""
    for mine in _shapes():
        for theirs in _shapes():
            family = Recollection(Target(REPO, mine), InMemory())
            assert may_fit(row("x/y", shape=theirs), family) or not same_shape(
                row("x/y", shape=theirs), family
            )
    assert not may_fit(row("x/y", shape=Shape("llama", 9, quantized=True)), family_of())
