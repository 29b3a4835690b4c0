"""The synthetic population: repeatable, and every fork is as discoverable as the truth says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError

from crawler.interface import Channel
from forkwatch.demo.hub import LoopbackHub
from forkwatch.demo.population import BASE, RELEASE, SHAPE, Growth, Share, Truth, grow, populate
from forkwatch.demo.population.decoys import DECOYS
from forkwatch.demo.population.ways import UNCENSORED_TAGS, WAYS

REPOS, FORKS = 2_000, 200
ROW = ["author", "sha", "tags", "createdAt", "lastModified", "downloads", "config", "safetensors", "gguf"]


@pytest.fixture(scope="module")
def populated(shared_session: None) -> Iterator[tuple[LoopbackHub, Truth]]:
    """A hub of two thousand repositories; not to be changed."""
    hub = LoopbackHub()
    truth = populate(hub, repos=REPOS, forks=FORKS, seed=7)
    with hub:
        yield hub, truth


@pytest.fixture(scope="module")
def rows(populated: tuple[LoopbackHub, Truth]) -> dict[str, dict[str, object]]:
    """Every row of the listing, by id, as the real client reads it."""
    api = HfApi(endpoint=populated[0].endpoint, token=False)
    listed = api.list_models(sort="created_at", expand=ROW)  # type: ignore[arg-type]  # a list of literals
    return {model.id: vars(model) for model in listed}


def _tags(row: dict[str, object]) -> set[str]:
    tags = row["tags"]
    assert isinstance(tags, list)
    return set(tags)


def _total(row: dict[str, object]) -> int | None:
    gguf, safetensors = row["gguf"], row["safetensors"]
    if safetensors is not None:
        return int(getattr(safetensors, "total", 0))
    return int(gguf["total"]) if isinstance(gguf, dict) else None


def _bases(row: dict[str, object]) -> set[str]:
    return {tag.split(":")[1] for tag in _tags(row) if re.fullmatch(r"base_model:[^:]+", tag)}


def test_population_is_complete(
    populated: tuple[LoopbackHub, Truth], rows: dict[str, dict[str, object]]
) -> None:
    """As many repositories and forks as were asked for, every way and every decoy among them."""
    truth = populated[1]
    assert len(rows) == REPOS
    assert rows.keys() == truth.facts.keys() | {RELEASE}
    assert len(truth.forks) == FORKS
    made = Counter(fact.way for fact in truth.facts.values())
    assert all(made[way.id] >= 2 for way in WAYS)
    assert all(made[decoy.id] >= 2 for decoy in DECOYS)
    assert sum(way.share for way in WAYS) == pytest.approx(1)


def test_population_is_a_function_of_its_arguments(populated: tuple[LoopbackHub, Truth]) -> None:
    """The same seed gives the same truth and the same commits and dates; another seed does not."""
    hub, truth = populated
    again = LoopbackHub()
    assert populate(again, repos=REPOS, forks=FORKS, seed=7) == truth
    with again:
        listings = [
            [
                vars(model)
                for model in HfApi(endpoint=end, token=False).list_models(sort="last_modified", full=True)
            ]
            for end in (hub.endpoint, again.endpoint)
        ]
    assert [(row["id"], row["sha"], row["_id"]) for row in listings[0]] == [
        (row["id"], row["sha"], row["_id"]) for row in listings[1]
    ]
    assert populate(LoopbackHub(), repos=REPOS, forks=FORKS, seed=8) != truth


def test_every_channel_has_its_evidence(
    populated: tuple[LoopbackHub, Truth], rows: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """What the truth calls discoverable by a channel shows the signal of that channel on the hub."""
    hub, truth = populated
    folded = {name.lower(): name for name in rows}
    accounts = Counter(name.partition("/")[0] for name in truth.forks)
    for name in truth.forks:
        row, fact = rows[name], truth.facts[name]
        config = row["config"]
        peft = config.get("peft", {}) if isinstance(config, dict) else {}
        named = {*_bases(row), peft.get("base_model_name_or_path")} - {None}
        parents = {folded.get(str(base).lower()) for base in named} & ({*truth.forks, RELEASE})
        assert (Channel.DECLARED in fact.channels) == bool(parents) or fact.way == "hidden", name
        if Channel.TAG in fact.channels:
            assert _tags(row) & set(UNCENSORED_TAGS)
        if Channel.NAME in fact.channels:
            assert "aurora7b" in re.sub(r"[-_.]", "", name.partition("/")[2].lower())
        if Channel.SHAPE in fact.channels:
            assert _total(row) == SHAPE.parameters
            assert not _bases(row)
        if Channel.NAMESPACE in fact.channels:
            assert accounts[name.partition("/")[0]] > 1
        if Channel.STATEMENT in fact.channels:
            assert RELEASE in _words(hub, name, tmp_path)


def _words(hub: LoopbackHub, name: str, cache: Path) -> str:
    """The card without its front matter, or the true parent in the reproduction record."""
    api = HfApi(endpoint=hub.endpoint, token=False)
    paths = {file.rfilename for file in api.model_info(name).siblings or ()}
    record = "reproduce/reproduce.json"
    path = record if record in paths else "README.md"
    text = Path(hf_hub_download(name, path, endpoint=hub.endpoint, cache_dir=cache, token=False)).read_text()
    return str(json.loads(text)["settings"]["model"]) if path == record else text.rpartition("\n---\n")[2]


def test_hidden_forks_show_no_signal(
    populated: tuple[LoopbackHub, Truth], rows: dict[str, dict[str, object]]
) -> None:
    """No base, no tag, no name, another shape, and an account of their own."""
    truth = populated[1]
    hidden = [name for name in truth.forks if not truth.facts[name].channels]
    accounts = Counter(name.partition("/")[0] for name in truth.facts)
    assert {truth.facts[name].way for name in hidden} == {"hidden"}
    for name in hidden:
        assert not _bases(rows[name])
        assert not _tags(rows[name]) & set(UNCENSORED_TAGS)
        assert "aurora" not in name.lower()
        assert _total(rows[name]) != SHAPE.parameters
        assert accounts[name.partition("/")[0]] == 1


def test_only_claims_declare_the_release_falsely(
    populated: tuple[LoopbackHub, Truth], rows: dict[str, dict[str, object]]
) -> None:
    """A decoy that names the release as its base is a correct candidate; no other decoy names any of them."""
    truth = populated[1]
    family = {RELEASE.lower(), *(name.lower() for name in truth.forks)}
    for name, fact in truth.facts.items():
        if not fact.is_fork:
            assert fact.claims == bool({base.lower() for base in _bases(rows[name])} & family), name


def test_decoys_confuse(populated: tuple[LoopbackHub, Truth], rows: dict[str, dict[str, object]]) -> None:
    """There are decoys of the release's shape, with its tags, under its base and by accounts that fork."""
    truth = populated[1]
    decoys = [name for name, fact in truth.facts.items() if not fact.is_fork and not fact.claims]
    forkers = {name.partition("/")[0] for name in truth.forks}
    assert any(_total(rows[name]) == SHAPE.parameters and not _bases(rows[name]) for name in decoys)
    assert any("heretic" in _tags(rows[name]) for name in decoys)
    assert any(_bases(rows[name]) == {BASE} for name in decoys)
    assert any(name.partition("/")[0] in forkers for name in decoys)
    assert any("/" not in name for name in decoys)


def test_children_are_younger_than_their_parents(
    populated: tuple[LoopbackHub, Truth], rows: dict[str, dict[str, object]]
) -> None:
    """Nothing declares a fork that does not exist yet, but for two that name each other."""
    truth = populated[1]
    for name in truth.forks:
        if truth.facts[name].way != "declared-cycle":
            for parent in _bases(rows[name]) & set(truth.forks):
                assert str(rows[parent]["created_at"]) <= str(rows[name]["created_at"])


def test_score_counts_what_was_found(populated: tuple[LoopbackHub, Truth]) -> None:
    """All forks and claims score 1; hidden forks do not lower recall, decoys lower precision."""
    truth = populated[1]
    claims = [name for name, fact in truth.facts.items() if fact.claims]
    decoy = next(name for name, fact in truth.facts.items() if fact.way == "unrelated")
    perfect = truth.score([*truth.discoverable, *claims, RELEASE])
    assert (perfect.recall.rate, perfect.precision.rate) == (1.0, 1.0)
    assert (perfect.missed, perfect.wrong) == ((), ())
    assert perfect.by_way["hidden"].found == 0
    found = [name for name in truth.discoverable if Channel.TAG not in truth.facts[name].channels]
    poor = truth.score([*found, decoy, "not/there"])
    assert poor.by_channel[Channel.TAG].rate == 0
    assert poor.by_channel[Channel.TAG].of == len(truth.discoverable) - len(found)
    assert poor.precision == Share(len(found), len(found) + 2)
    assert set(poor.wrong) == {decoy, "not/there"}
    with pytest.raises(ZeroDivisionError):
        _ = truth.score([]).precision.rate


@pytest.mark.parametrize(("repos", "forks"), [(2000, 10), (100, 100)])
def test_too_small_a_population_is_refused(repos: int, forks: int) -> None:
    """Every way needs a fork or two."""
    with pytest.raises(ValueError, match="too few"):
        populate(LoopbackHub(), repos=repos, forks=forks)


@pytest.fixture(scope="module")
def grown(shared_session: None) -> Iterator[tuple[LoopbackHub, Truth, Growth]]:
    """A hub of which a day was added."""
    hub = LoopbackHub()
    truth = populate(hub, repos=REPOS, forks=FORKS, seed=7)
    day = grow(hub, truth, new=1_000, events=8, seed=1)
    with hub:
        yield hub, truth, day


def test_growth_is_what_the_hub_shows(grown: tuple[LoopbackHub, Truth, Growth]) -> None:
    """The listing holds what the new truth says, and every event has left its trace."""
    hub, before, day = grown
    api = HfApi(endpoint=hub.endpoint, token=False)
    listed = {model.id: model for model in api.list_models(full=True, sort="created_at")}
    assert listed.keys() == day.truth.facts.keys() | {RELEASE}
    recent = {
        name for name, model in listed.items() if model.last_modified and model.last_modified >= before.until
    }
    assert recent == {*day.created, *day.committed, *day.reregistered}
    assert all(listed[name].gated for name in day.gated)
    for name in day.deleted:
        with pytest.raises(RepositoryNotFoundError):
            api.model_info(name)
    for old, new in day.renamed:
        assert api.model_info(old).id == new
    assert all(listed[name].downloads >= 1000 for name in day.remeasured)  # type: ignore[operator]  # is shown


def test_growth_keeps_the_books(grown: tuple[LoopbackHub, Truth, Growth]) -> None:
    """Each repository has one event; forks are new in proportion, and those registered again are none."""
    _, before, day = grown
    touched = [*day.committed, *day.deleted, *(old for old, _ in day.renamed), *day.gated, *day.reregistered]
    assert len(touched) == len(set(touched))
    assert len(day.created) == 1_000
    assert sum(day.truth.facts[name].is_fork for name in day.created) == 50
    assert not any(day.truth.facts[name].is_fork for name in day.reregistered)
    assert len(day.truth.facts) == len(before.facts) + 1_000 - len(day.deleted)
    assert day.truth.until - before.until == timedelta(days=1)
    assert all(day.truth.facts[new] == before.facts[old] for old, new in day.renamed)


def test_growth_is_repeatable(grown: tuple[LoopbackHub, Truth, Growth]) -> None:
    """The same seed makes the same day, and a second day follows the first."""
    hub, truth = LoopbackHub(), grown[1]
    populate(hub, repos=REPOS, forks=FORKS, seed=7)
    day = grow(hub, truth, new=1_000, events=8, seed=1)
    assert day == grown[2]
    assert not set(grow(hub, day.truth, new=1_000, events=8, seed=1).created) & day.truth.facts.keys()
