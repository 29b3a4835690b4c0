"""Listings of the loopback hub: the indexes against a brute-force search, pages, parameter counts, GGUF."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from huggingface_hub import HfApi
from hypothesis import given, settings
from hypothesis import strategies as st

from forkwatch.demo.hub import Gguf, LoopbackHub, Sketch
from forkwatch.demo.hub.catalogue import SORT_KEYS, Catalogue, Wanted
from forkwatch.demo.hub.repo import Repo
from forkwatch.demo.hub.sketch import sketch_commit

DAY = datetime(2026, 10, 1, tzinfo=UTC)
TAGS = ("heretic", "chat", "code")

names = st.builds("{}/{}".format, st.sampled_from(["lab", "Lab", "user"]), st.sampled_from("aAbBcdef"))
sketches = st.builds(
    Sketch,
    card=st.fixed_dictionaries({"tags": st.lists(st.sampled_from(TAGS), max_size=2)}),
    weights=st.one_of(st.none(), st.fixed_dictionaries({"F16": st.integers(0, 5)})),
)


@st.composite
def repos(draw: st.DrawFn) -> Repo:
    """A repository out of few possible ones, so that ranks tie and conditions meet."""
    date = DAY + timedelta(hours=draw(st.integers(0, 2)))
    commit = sketch_commit(draw(sketches), "", date + timedelta(hours=draw(st.integers(0, 2))), ())
    name = draw(names)
    return Repo(
        name=name,
        object_id=f"{date.hour}{name}",
        created_at=date,
        history=(commit,),
        downloads=draw(st.integers(0, 2)),
    )


wanted = st.builds(
    Wanted,
    order=st.sampled_from(sorted(SORT_KEYS)),
    tags=st.frozensets(st.sampled_from((*TAGS, "nobody's")), max_size=2),
    author=st.one_of(st.none(), st.sampled_from(["lab", "user", "none"])),
    search=st.sampled_from(["", "", "a", "b/", "/"]),
    parameters=st.one_of(st.none(), st.tuples(st.integers(0, 4), st.integers(0, 6))),
)


def _by_hand(there: Iterable[Repo], asked: Wanted) -> list[str]:
    def fits(repo: Repo) -> bool:
        total = repo.head.facts.total
        low, high = asked.parameters or (0, 0)
        return (
            asked.tags <= set(repo.head.facts.tags)
            and asked.author in {None, repo.name.split("/")[0]}
            and asked.search in repo.name.lower()
            and (asked.parameters is None or (total is not None and low <= total <= high))
        )

    def rank(repo: Repo) -> tuple[int, str]:
        return (SORT_KEYS[asked.order](repo), repo.object_id)

    return [repo.name for repo in sorted(filter(fits, there), key=rank, reverse=True)]


@pytest.mark.parametrize("few", [0, 4, 10**6])
@settings(deadline=None)
@given(
    states=st.lists(repos(), max_size=30),
    gone=st.sets(names),
    asked=st.lists(wanted, min_size=1, max_size=4),
    size=st.integers(1, 4),
)
def test_listing_is_what_a_search_by_hand_finds(
    few: int, states: list[Repo], gone: set[str], asked: list[Wanted], size: int
) -> None:
    """Whichever index answers, and however often a repository changed, pages add up to the true listing."""
    catalogue, there = Catalogue(few), {}
    for number, repo in enumerate(states):
        if number == len(states) // 2:
            catalogue.select(asked[0], 1)  # the orders exist from here on, and are kept up to date
        catalogue.put(repo)
        there[repo.name] = repo
    for name in gone & there.keys():
        catalogue.drop(name)
        del there[name]
    for query in asked:
        found: list[str] = []
        page, query_now = catalogue.select(query, size), query
        while page:
            found += [repo.name for repo in page]
            last = (SORT_KEYS[query.order](page[-1]), page[-1].object_id)
            query_now = replace(query_now, before=last)
            page = catalogue.select(query_now, size)
        assert found == _by_hand(there.values(), query)


def test_pages_are_complete_while_repositories_come_go_and_change() -> None:
    """By creation, each repository that was there all the time appears once, whatever happens in between."""
    with LoopbackHub(page_size=10) as hub:
        for number in range(100):
            hub.create_repo(f"demo/m{number:03}")
        listed = iter(HfApi(endpoint=hub.endpoint, token=False).list_models(sort="created_at"))
        ids = []
        for turn in range(9):
            ids += [next(listed).id for _ in range(10)]
            hub.create_repo(f"demo/new{turn}")
            hub.delete_repo(f"demo/m{turn:03}")
            hub.commit(f"demo/m{turn + 10:03}", {"a": b""}, date=datetime(2027, 1, 1, tzinfo=UTC))
        ids += [model.id for model in listed]
    assert len(ids) == len(set(ids))
    assert ids == [f"demo/m{number:03}" for number in range(99, 8, -1)]


@pytest.fixture
def sized(hub: LoopbackHub) -> LoopbackHub:
    """A hub with models of 1, 7 and 8 billion parameters, one of them as GGUF, and one of unknown size."""
    hub.create_repo("demo/small", sketch=Sketch(weights={"BF16": 1_000_000_000}))
    hub.create_repo("demo/middle", sketch=Sketch(gguf=Gguf(7_000_000_000, "llama", 4096)))
    hub.create_repo("demo/large", sketch=Sketch(weights={"F32": 1, "BF16": 7_999_999_999}))
    hub.create_repo("demo/unknown", sketch=Sketch(config={"model_type": "llama"}))
    return hub


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ("min:6B,max:8B", ["large", "middle"]),
        ("min:7000000000,max:7000000000", ["middle"]),
        ("min:7.5b", ["large"]),
        ("max:1000M", ["small"]),
        ("max:999999K", []),
        ("min:0", ["large", "middle", "small"]),
    ],
)
def test_parameter_counts_filter(sized: LoopbackHub, api: HfApi, bounds: str, found: list[str]) -> None:
    """`num_parameters` looks at the safetensors or the GGUF total, bounds included; no total, no match."""
    listed = api.list_models(num_parameters=bounds, sort="created_at")
    assert [model.id.removeprefix("demo/") for model in listed] == found


@pytest.mark.parametrize("bounds", ["", "7B", "min:", "min:x", "least:1B", "min:1B;max:2B"])
def test_malformed_parameter_count_is_refused(sized: LoopbackHub, web: httpx2.Client, bounds: str) -> None:
    """A range that means nothing is a 400 rather than no filter."""
    reply = web.get(f"{sized.endpoint}/api/models", params={"num_parameters": bounds})
    assert reply.status_code == 400


def test_list_tells_the_gguf_header(sized: LoopbackHub, api: HfApi) -> None:
    """`expand=gguf` has total, architecture and context length for a repository with a GGUF file only."""
    models = {model.id: model for model in api.list_models(expand=["gguf", "config", "safetensors"])}
    assert models["demo/middle"].gguf == {
        "total": 7_000_000_000,
        "architecture": "llama",
        "context_length": 4096,
    }
    assert models["demo/large"].gguf is None
    assert models["demo/large"].safetensors is not None
    assert models["demo/large"].safetensors.total == 8_000_000_000
    assert models["demo/unknown"].config == {"model_type": "llama"}
