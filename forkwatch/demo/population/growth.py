"""One more day: new repositories, and everything that can happen to old ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from forkwatch.demo.hub import LoopbackHub, Sketch
from forkwatch.demo.population.build import decoy_stream, fork_stream
from forkwatch.demo.population.truth import Fact, Truth
from forkwatch.demo.population.ways import WAYS
from forkwatch.demo.population.world import World

_FORK_SHARE = 0.05
"""Of what is new."""
_LEAVES = (
    "declared-adapter",
    "declared-quantized",
    "name-only",
    "tag-and-name",
    "peft-only",
)
"""Forks that no other fork builds on: what happens to them changes the truth about them alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What happened. A repository appears in one of these at most, `remeasured` aside."""

    created: tuple[str, ...]
    committed: tuple[str, ...]
    """Their head moved, and `lastModified` with it."""
    deleted: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    """Old and new name; the old one redirects."""
    gated: tuple[str, ...]
    reregistered: tuple[str, ...]
    """Deleted, and made anew under the same name by somebody else: no forks any more."""
    remeasured: tuple[str, ...]
    """Downloads or likes changed and nothing else; the Hub announces it nowhere."""
    truth: Truth
    """About the hub as it is now."""


def grow(hub: LoopbackHub, truth: Truth, *, new: int = 3_000, events: int = 20, seed: int = 0) -> Growth:
    """Let a day pass; the same arguments and the same hub make the same day.

    Args:
        hub: that `truth` is about.
        truth: what is there.
        new: repositories created, one in twenty of them a fork.
        events: how many forks, and as many decoys, get a new commit; a quarter as many forks each are
            deleted, renamed, gated and registered again.
        seed: of every choice.

    Raises:
        ValueError: there are too few forks for so many events, or too few new ones for every way.
    """
    forks = round(new * _FORK_SHARE)
    if forks < 2 * len(WAYS):
        raise ValueError(f"{new} new repositories hold fewer than two forks for each way")
    until = truth.until + timedelta(days=1)
    world = _world(hub, truth, until, seed)
    victims, decoys = _victims(world, truth, events)
    few = max(events // 4, 1)
    committed = (*victims[:events], *decoys)
    deleted, renamed, gated, again = (
        tuple(victims[events + few * turn : events + few * (turn + 1)]) for turn in range(4)
    )
    facts = dict(truth.facts)
    for name in committed:
        hub.commit(
            name, {"NOTES.md": b"Changed.\n"}, message="Update", replace=False, date=_moment(world, truth)
        )
    for name in (*deleted, *again):
        hub.delete_repo(name)
        del facts[name]
    moves = tuple((name, f"{name.partition('/')[0]}-hq/{name.partition('/')[2]}") for name in renamed)
    for old, name in moves:
        hub.rename_repo(old, name)
        facts[name] = facts.pop(old)
    for name in gated:
        hub.set_access(name, gated=True)
    for name in again:
        sketch = Sketch(body="# Something else\n", salt=f"again {name}")
        hub.create_repo(name, created_at=_moment(world, truth), sketch=sketch)
        facts[name] = Fact("re-registered", frozenset(), is_fork=False)
    created = _create(world, forks, new)
    facts |= {name: world.facts[name] for name in created}
    grown = Truth(truth.release, truth.base, until, facts)
    return Growth(
        created=created,
        committed=committed,
        deleted=deleted,
        renamed=moves,
        gated=gated,
        reregistered=again,
        remeasured=_remeasure(hub, world, grown, events),
        truth=grown,
    )


def _world(hub: LoopbackHub, truth: Truth, until: datetime, seed: int) -> World:
    """A world that knows what is there, so that the new may build on the old."""
    world = World(hub, f"{seed} {until}", truth.until, until)
    for name, fact in truth.facts.items():
        world.note(name, fact)
    return world


def _victims(world: World, truth: Truth, events: int) -> tuple[list[str], list[str]]:
    """Forks and decoys, in random order, that something happens to."""
    leaves = [name for name, fact in truth.facts.items() if fact.is_fork and fact.way in _LEAVES]
    decoys = [name for name, fact in truth.facts.items() if fact.way == "unrelated"]
    if len(leaves) < 2 * events + 4 or len(decoys) < events:
        raise ValueError(f"too few repositories for {events} events")
    world.rng.shuffle(leaves)
    return leaves, world.rng.sample(decoys, events)


def _create(world: World, forks: int, new: int) -> tuple[str, ...]:
    created = []
    for stream in (fork_stream(world, forks), decoy_stream(world, new - forks)):
        for made in stream:
            world.add(made)
            created.append(made.name)
    return tuple(created)


def _remeasure(hub: LoopbackHub, world: World, truth: Truth, count: int) -> tuple[str, ...]:
    names = tuple(world.rng.sample(truth.forks, count))
    for name in names:
        hub.set_metrics(name, downloads=1_000 + world.rng.randrange(10**6), likes=world.rng.randrange(10**4))
    return names


def _moment(world: World, truth: Truth) -> datetime:
    """A time of the day."""
    return truth.until + timedelta(seconds=1 + world.rng.randrange(86_000))
